"""zero_shot: opposite prompts on the loaded model, no training.

Two signals per pair of prompts, both above 0 for an image that the model finds nearer the good prompt, averaged over a
few low noise levels: how much better the good prompt predicts the noise, and how much more the image's cross-attention
answers to it. They are GenzIQA's (arXiv 2406.04654), without its learned context and LoRA and with the sign of the
noise term that makes sense untrained; reimplemented, not by its authors. No published figure exists for this form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..backbone.schedule import sigma_of_timestep
from ..errors import BadInput
from ..images import as_list, reason_unscorable
from ..records import Score, ScoreBatch, ScoreSpec
from ..taps.recorder import Recorder
from .native_size import native_policy, native_shape, to_native
from .prompt_scores import alignment, noise_error, noised, recorded_alignment
from .zero_shot_options import DEFAULT_PAIRS, Pair, ZeroShotOptions, check_pairs, combine
from .zero_shot_plan import Block, plan_blocks

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Backbone, Conditioning, Tap
    from .contract import Images, Watch

__all__ = ["DEFAULT_PAIRS", "Pair", "ZeroShot", "ZeroShotOptions"]

_BLIND_TO = (
    "hands, faces, meaning, whether the picture fits its prompt, faults that vanish when the picture is resized, "
    "people's taste (it was fitted to nobody's ratings)"
)
_NAN_LATENT = "the VAE gave NaN or infinite latents (half precision overflows in some VAEs: try a bf16 or fp32 VAE)"
_NAN_OUTPUT = "the model's output held NaN or infinite values (half precision overflowed: try bf16 or fp32)"


class ZeroShot:
    """Antonym prompts on the loaded model; a :class:`~.contract.Scorer`.

    Args:
        backbone: The loaded model; it needs its text encoder and VAE.
        pairs: (good, bad) prompts.
        options: Noise levels, weights and the like.

    Raises:
        BadInput: pairs or options that make no sense, or taps that the model does not have.
    """

    def __init__(
        self, backbone: Backbone, pairs: Sequence[Pair] = DEFAULT_PAIRS, options: ZeroShotOptions | None = None
    ) -> None:
        self._backbone, self._options = backbone, options or ZeroShotOptions()
        self._pairs = check_pairs(pairs)
        family = backbone.family
        self._sigmas = [sigma_of_timestep(t, family.prediction) for t in self._options.timesteps]
        self._taps = _taps(family.taps, self._options) if self._options.attention_weight else ()
        self._conditioning: Conditioning | None = None

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean: an open scale, good above bad, 0 where both prompts fit alike."""
        options = self._options
        return ScoreSpec(
            name="zero_shot",
            centre=options.centre,
            spread=options.spread,
            needs=("image", "model", "clip", "vae"),
            size_policy=native_policy(self._backbone.family, options.side),
            blind_to=_BLIND_TO,
            backbone=self._backbone.fingerprint.to_text(),
            settings={
                "pairs": [list(pair) for pair in self._pairs],
                "sigmas": self._sigmas,
                **options.to_dict(),
                "taps": [tap.name for tap in self._taps],
                "identity": dict(self._backbone.identity),
            },
        )

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """Score every image. ``prompts`` are not used; ``watch`` is called after every forward of the denoiser.

        Each score's attributes hold both signals, per pair too, and the size that the image was scored at.
        """
        found = as_list(images)
        if prompts is not None and len(prompts) != len(found):
            raise BadInput(f"{len(found)} prompts, one per image", str(len(prompts)), "Leave prompts out.")
        scores: dict[int, Score] = {}
        sizes: dict[int, tuple[int, int]] = {}
        for place, image in enumerate(found):
            size = self._size(image)
            if isinstance(size, str):
                scores[place] = Score(None, place, reason=size)
            else:
                sizes[place] = size
        with torch.no_grad():
            for block in self._blocks(sizes, watch):
                scores.update(self._score_block(block, [found[place] for place in block.places]))
        return ScoreBatch(self.spec, tuple(scores[place] for place in range(len(found))))

    def _size(self, image: Tensor) -> tuple[int, int] | str:
        """The pixels that an image is scored at, or why it cannot be."""
        reason = reason_unscorable(image)
        if reason is not None:
            return reason
        try:
            height, width = image.shape[1:]
            return native_shape(height, width, self._backbone.family, self._options.side)
        except BadInput as error:
            return str(error)

    def _blocks(self, sizes: dict[int, tuple[int, int]], watch: Watch | None) -> list[Block]:
        family = self._backbone.family

        def rows_that_fit(size: tuple[int, int]) -> int:
            shape = (family.latent_channels, *(side // family.latent_stride for side in size))
            return min(self._options.most_rows, self._backbone.rows_that_fit(shape))

        rows = 2 * len(self._pairs) * len(self._sigmas)
        return plan_blocks(sizes, rows_an_image=rows, rows_that_fit=rows_that_fit, watch=watch)

    def _score_block(self, block: Block, images: Sequence[Tensor]) -> dict[int, Score]:
        """Images that share one latent size: encoded together, then all their rows in the planned forwards."""
        z = self._backbone.encode(torch.stack([to_native(image, block.size) for image in images])).float()
        finite = z.flatten(1).isfinite().all(1)
        # A broken latent is scored as zeros, so that it cannot reach its batch-mates, and gets its reason below.
        z = torch.where(finite.view(-1, 1, 1, 1), z, torch.zeros_like(z))
        noise = [self._backbone.noise(z.shape[1:], seed) for seed in self._options.seeds()]
        eps = torch.stack(noise).to(z)
        errors, answers, silent = [], [], set()
        for first, last in block.forwards:
            error, answer, quiet = self._forward(z, eps, first, last)
            errors.append(error)
            answers.append(answer)
            silent.update(quiet)
            block.done()
        shape = (len(images), len(self._pairs), 2, len(self._sigmas))
        error, answer = torch.cat(errors).view(shape), torch.cat(answers).view(shape)
        return {
            place: self._one(place, block.size, ok, error[i], answer[i], silent)
            for i, (place, ok) in enumerate(zip(block.places, finite.tolist(), strict=True))
        }

    def _forward(self, z: Tensor, eps: Tensor, first: int, last: int) -> tuple[Tensor, Tensor, list[str]]:
        """Rows ``first`` to ``last`` of [image, pair, side, level] → noise errors, attention answers, silent taps."""
        levels, prompts = len(self._sigmas), 2 * len(self._pairs)
        rows = range(first, last)
        image = [row // (prompts * levels) for row in rows]
        level = [row % levels for row in rows]
        prediction = self._backbone.family.prediction
        clean, sigma = z[image], torch.tensor(self._sigmas, device=z.device)[level]
        z_t = noised(clean, eps[level], sigma, prediction)
        conditioning = self._embedded().rows([row // levels % prompts for row in rows])
        recorder = Recorder.of(self._taps, alignment(self._options.temperature)) if self._taps else None
        error = torch.zeros(len(rows))
        if self._options.noise_weight or recorder is None:
            x0 = self._backbone.denoise(z_t, sigma, conditioning, recorder)
            error = noise_error(x0, clean, sigma, prediction).cpu()
        else:
            self._backbone.features(z_t, sigma, conditioning, recorder)
        answer, silent = (torch.zeros(len(rows)), []) if recorder is None else recorded_alignment(recorder, len(rows))
        return error, answer, silent

    def _embedded(self) -> Conditioning:
        """All prompts, in the order [pair, good or bad]; embedded once."""
        if self._conditioning is None:
            self._conditioning = self._backbone.embed([prompt for pair in self._pairs for prompt in pair])
        return self._conditioning

    def _one(
        self, place: int, size: tuple[int, int], finite: bool, error: Tensor, answer: Tensor, silent: set[str]
    ) -> Score:
        """One image's [pair, side, level] signals → its score."""
        attributes: dict[str, Any] = {"height": size[0], "width": size[1]}
        names = [tap.name for tap in self._taps if tap.name in silent]
        if not finite:
            return Score(None, place, reason=_NAN_LATENT, attributes=attributes)
        if names and len(names) == len(self._taps):
            return Score(None, place, reason=_silent(names, "no"), attributes=attributes)
        if names:
            attributes["warnings"] = [_silent(names, "not every")]
        if not bool(error.isfinite().all() and answer.isfinite().all()):
            return Score(None, place, reason=_NAN_OUTPUT, attributes=attributes)
        noise = (error[:, 1] - error[:, 0]).double().mean(1).tolist()
        attention = (answer[:, 0] - answer[:, 1]).double().mean(1).tolist()
        value, parts = combine(self._options, noise, attention)
        return Score.of(value, place, attributes={**attributes, **parts})


def _taps(known: Sequence[Tap], options: ZeroShotOptions) -> tuple[Tap, ...]:
    """The attention taps to read, in forward order."""
    attention = [tap for tap in known if tap.kind == "attention"]
    names = [tap.name for tap in attention]
    asked = list(options.taps) if options.taps is not None else names
    unknown = [name for name in asked if name not in names]
    if unknown or not asked:
        raise BadInput(
            f"attention taps of this model ({', '.join(names) or 'it has none'})",
            ", ".join(unknown) or "none",
            "Leave taps out to read them all, or set attention_weight to 0.",
        )
    return tuple(tap for tap in attention if tap.name in asked)


def _silent(names: Sequence[str], how_many: str) -> str:
    return (
        f"{how_many} cross-attention layer could be read (silent: {', '.join(names)}): packs that cache steps, merge "
        "tokens or compile the model skip them. Score with the model before such a node"
    )
