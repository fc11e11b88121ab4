"""zero_shot: opposite prompts on the loaded model, no training.

Two signals per pair of prompts, both above 0 for an image that the model finds nearer the good prompt, averaged over a
few low noise levels: how much better the good prompt predicts the noise, and how much more the image's cross-attention
answers to it. They are GenzIQA's (arXiv 2406.04654), without its learned context and LoRA and with the sign of the
noise term that makes sense untrained; reimplemented, not by its authors. No published figure exists for this form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..backbone.schedule import sigma_of_timestep
from ..records import Score, ScoreBatch, ScoreSpec
from .native_size import native_policy, native_shape
from .prompt_reader import PromptReader, Reading, ReadingPlan, attention_taps
from .zero_shot_options import DEFAULT_PAIRS, Pair, ZeroShotOptions, check_pairs, combine

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Backbone, Conditioning
    from .contract import Images, Watch

__all__ = ["DEFAULT_PAIRS", "Pair", "ZeroShot", "ZeroShotOptions"]

_BLIND_TO = (
    "hands, faces, meaning, whether the picture fits its prompt, faults that vanish when the picture is resized, "
    "people's taste (it was fitted to nobody's ratings)"
)


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
        self._reader = PromptReader(backbone, self._plan(), self._embed)

    def _plan(self) -> ReadingPlan:
        options, family = self._options, self._backbone.family
        return ReadingPlan(
            sigmas=tuple(sigma_of_timestep(t, family.prediction) for t in options.timesteps),
            seeds=tuple(options.seeds()),
            taps=attention_taps(family.taps, options.taps) if options.attention_weight else (),
            temperature=options.temperature,
            noise=bool(options.noise_weight),
            most_rows=options.most_rows,
            shape=lambda height, width: native_shape(height, width, family, options.side),
        )

    @property
    def backbone(self) -> Backbone:
        """The loaded model."""
        return self._backbone

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean: an open scale, good above bad, 0 where both prompts fit alike."""
        options, plan = self._options, self._reader.plan
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
                "sigmas": list(plan.sigmas),
                **options.to_dict(),
                "taps": [tap.name for tap in plan.taps],
                "identity": dict(self._backbone.identity),
            },
        )

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """Score every image. ``prompts`` are not used; ``watch`` is called after every forward of the denoiser.

        Each score's attributes hold both signals, per pair too, and the size that the image was scored at.
        """
        return self._batch(self._reader.read(images, prompts, watch))

    def score_latents(
        self, latents: Tensor, prompts: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> ScoreBatch:
        """As :meth:`score`, from latents [N, C, h, w] in the model's space, at their own size."""
        return self._batch(self._reader.read_latents(latents, prompts, watch))

    def _batch(self, readings: Sequence[Reading | Score]) -> ScoreBatch:
        return ScoreBatch(self.spec, tuple(self._one(place, found) for place, found in enumerate(readings)))

    def _embed(self) -> Conditioning:
        """All prompts, in the order [pair, good or bad]."""
        return self._backbone.embed([prompt for pair in self._pairs for prompt in pair])

    def _one(self, place: int, found: Reading | Score) -> Score:
        """One image's [pair and side, level] signals → its score."""
        if isinstance(found, Score):
            return found
        shape = (len(self._pairs), 2, -1)
        error, answer = found.error.view(shape), found.answer.view(shape)
        noise = (error[:, 1] - error[:, 0]).mean(1).tolist()
        attention = (answer[:, 0] - answer[:, 1]).mean(1).tolist()
        value, parts = combine(self._options, noise, attention)
        return Score.of(value, place, attributes={**found.attributes, **parts})
