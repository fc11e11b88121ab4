"""Images through the denoiser with a few prompts at a few noise levels: the two signals of every prompt and level.

What :mod:`~.zero_shot` and :mod:`~.genziqa` share: sizes, encoding, noise, forwards of as many rows as fit, and why an
image could not be read. What the signals are worth is each scorer's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from ..backbone.schedule import noised
from ..errors import BadInput
from ..images import as_list, reason_unscorable
from ..records import Score
from ..taps.recorder import Recorder
from .native_size import native_shape, to_native
from .prompt_plan import Block, plan_blocks
from .prompt_scores import alignment, noise_error, recorded_alignment

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Backbone, Conditioning, Tap
    from .contract import Images, Watch

_NAN_LATENT = "the VAE gave NaN or infinite latents (half precision overflows in some VAEs: try a bf16 or fp32 VAE)"
_NAN_OUTPUT = "the model's output held NaN or infinite values (half precision overflowed: try bf16 or fp32)"

#: Pixels [N, 3, h, w] in [0, 1] → latents [N, C, h', w'].
Encode: TypeAlias = "Callable[[Tensor], Tensor]"
#: Height and width of an image → those that it is scored at; raises BadInput for an image that cannot be.
Shape: TypeAlias = Callable[[int, int], "tuple[int, int]"]


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """How images are read.

    Attributes:
        sigmas: Noise levels.
        seeds: The noise of each level.
        taps: Attention taps to read; none leaves the attention signal out.
        temperature: Of the soft maximum over queries.
        noise: Whether the noise signal is wanted; without it forwards end at the last tap.
        most_rows: Rows in one forward at most.
        shape: The size at which an image is scored; the family's native area when left out.
        encode: How pixels become latents; the backbone's own way when left out.
        whole: An image gets a reason where any of the taps was silent, not only where all were: a readout that was
            fitted to all of them means nothing without one.
    """

    sigmas: tuple[float, ...]
    seeds: tuple[int, ...]
    taps: tuple[Tap, ...]
    temperature: float
    noise: bool = True
    most_rows: int = 32
    shape: Shape | None = None
    encode: Encode | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """What one image's forwards gave.

    Attributes:
        error: Noise error of each prompt at each level [prompts, levels], float64; zeros when not wanted.
        answer: Attention answer of each prompt at each level [prompts, levels], float64; zeros when not wanted.
        attributes: The size, and warnings if any.
    """

    error: Tensor
    answer: Tensor
    attributes: dict[str, Any]


class PromptReader:
    """Reads images with a fixed set of prompts.

    Args:
        backbone: The model.
        plan: How to read.
        conditioning: The prompts, one row each; called once, on first use.
    """

    def __init__(self, backbone: Backbone, plan: ReadingPlan, conditioning: Callable[[], Conditioning]) -> None:
        self._backbone, self.plan, self._embed = backbone, plan, conditioning
        self._conditioning: Conditioning | None = None

    def read(
        self, images: Images, prompts: Sequence[str] | None = None, watch: Watch | None = None
    ) -> list[Reading | Score]:
        """One reading per image, or a score without a value that says why; ``watch`` is called after every forward.

        Raises:
            BadInput: prompts, which are not used, but not as many as images.
        """
        found = as_list(images)
        _check_count(prompts, len(found))
        missing: dict[int, Score] = {}
        sizes: dict[int, tuple[int, int]] = {}
        for place, image in enumerate(found):
            size = self._size(image)
            if isinstance(size, str):
                missing[place] = Score(None, place, reason=size)
            else:
                sizes[place] = size

        def latents(block: Block) -> Tensor:
            pixels = torch.stack([to_native(found[place], block.size) for place in block.places])
            return (self.plan.encode or self._backbone.encode)(pixels)

        return self._read(sizes, missing, latents, len(found), watch)

    def read_latents(
        self, z: Tensor, prompts: Sequence[str] | None = None, watch: Watch | None = None
    ) -> list[Reading | Score]:
        """As :meth:`read`, for latents [N, C, h, w] in the model's space, at their own size.

        Raises:
            BadInput: another shape, or not as many prompts.
        """
        family = self._backbone.family
        if z.ndim != 4 or z.shape[0] < 1 or z.shape[1] != family.latent_channels:
            raise BadInput(
                f"latents [N, {family.latent_channels}, h, w]", f"shape {list(z.shape)}", "Use this model's latents."
            )
        _check_count(prompts, len(z))
        size = (z.shape[2] * family.latent_stride, z.shape[3] * family.latent_stride)
        sizes = dict.fromkeys(range(len(z)), size)
        return self._read(sizes, {}, lambda block: z[list(block.places)], len(z), watch)

    def _read(
        self,
        sizes: Mapping[int, tuple[int, int]],
        missing: Mapping[int, Score],
        latents: Callable[[Block], Tensor],
        count: int,
        watch: Watch | None,
    ) -> list[Reading | Score]:
        done: dict[int, Reading | Score] = dict(missing)
        with torch.no_grad():
            blocks = self._blocks(sizes, watch)
            # All pictures first: where VAE and denoiser have no room side by side, the host exchanges them once.
            clean = [latents(block).float() for block in blocks]
            for block, z in zip(blocks, clean, strict=True):
                done.update(self._block(block, z))
        return [done[place] for place in range(count)]

    def _size(self, image: Tensor) -> tuple[int, int] | str:
        """The pixels that an image is scored at, or why it cannot be."""
        reason = reason_unscorable(image)
        if reason is not None:
            return reason
        try:
            height, width = image.shape[1:]
            return self.plan.shape(height, width) if self.plan.shape else native_shape(height, width, self._family)
        except BadInput as error:
            return str(error)

    @property
    def _family(self) -> Any:
        return self._backbone.family

    def _texts(self) -> Conditioning:
        if self._conditioning is None:
            self._conditioning = self._embed()
        return self._conditioning

    def _blocks(self, sizes: Mapping[int, tuple[int, int]], watch: Watch | None) -> list[Block]:
        family = self._family

        def rows_that_fit(size: tuple[int, int]) -> int:
            shape = (family.latent_channels, *(side // family.latent_stride for side in size))
            return min(self.plan.most_rows, self._backbone.rows_that_fit(shape))

        if not sizes:
            return []
        rows = len(self._texts().prompts) * len(self.plan.sigmas)
        return plan_blocks(sizes, rows_an_image=rows, rows_that_fit=rows_that_fit, watch=watch)

    def _block(self, block: Block, z: Tensor) -> dict[int, Reading | Score]:
        """Images that share one latent size: all their rows in the planned forwards."""
        finite = z.flatten(1).isfinite().all(1)
        # A broken latent is read as zeros, so that it cannot reach its batch-mates, and gets its reason below.
        z = torch.where(finite.view(-1, 1, 1, 1), z, torch.zeros_like(z))
        noise = [self._backbone.noise(z.shape[1:], seed) for seed in self.plan.seeds]
        eps = torch.stack(noise).to(z)
        errors, answers, silent = [], [], set[str]()
        for first, last in block.forwards:
            error, answer, quiet = self._forward(z, eps, first, last)
            errors.append(error)
            answers.append(answer)
            silent.update(quiet)
            block.done()
        shape = (len(block.places), len(self._texts().prompts), len(self.plan.sigmas))
        error, answer = torch.cat(errors).view(shape).double(), torch.cat(answers).view(shape).double()
        return {
            place: self._one(place, block.size, ok, error[i], answer[i], silent)
            for i, (place, ok) in enumerate(zip(block.places, finite.tolist(), strict=True))
        }

    def _forward(self, z: Tensor, eps: Tensor, first: int, last: int) -> tuple[Tensor, Tensor, list[str]]:
        """Rows ``first`` to ``last`` of [image, prompt, level] → noise errors, attention answers, silent taps."""
        texts, levels = self._texts(), len(self.plan.sigmas)
        prompts, rows = len(texts.prompts), range(first, last)
        level = [row % levels for row in rows]
        prediction = self._family.prediction
        clean = z[[row // (prompts * levels) for row in rows]]
        sigma = torch.tensor(self.plan.sigmas, device=z.device)[level]
        z_t = noised(clean, eps[level], sigma, prediction)
        conditioning = texts.rows([row // levels % prompts for row in rows])
        recorder = Recorder.of(self.plan.taps, alignment(self.plan.temperature)) if self.plan.taps else None
        error = torch.zeros(len(rows))
        if self.plan.noise or recorder is None:
            x0 = self._backbone.denoise(z_t, sigma, conditioning, recorder)
            error = noise_error(x0, clean, sigma, prediction).cpu()
        else:
            self._backbone.features(z_t, sigma, conditioning, recorder)
        answer, silent = (torch.zeros(len(rows)), []) if recorder is None else recorded_alignment(recorder, len(rows))
        return error, answer, silent

    def _one(
        self, place: int, size: tuple[int, int], finite: bool, error: Tensor, answer: Tensor, silent: set[str]
    ) -> Reading | Score:
        """One image's [prompt, level] signals, or why there are none."""
        attributes: dict[str, Any] = {"height": size[0], "width": size[1]}
        names = [tap.name for tap in self.plan.taps if tap.name in silent]
        if not finite:
            return Score(None, place, reason=_NAN_LATENT, attributes=attributes)
        if names and len(names) == len(self.plan.taps):
            return Score(None, place, reason=_silent(names, "no"), attributes=attributes)
        if names and self.plan.whole:
            return Score(None, place, reason=_silent(names, "not every"), attributes=attributes)
        if names:
            attributes["warnings"] = [_silent(names, "not every")]
        if not bool(error.isfinite().all() and answer.isfinite().all()):
            return Score(None, place, reason=_NAN_OUTPUT, attributes=attributes)
        return Reading(error, answer, attributes)


def attention_taps(known: Sequence[Tap], asked: Sequence[str] | None) -> tuple[Tap, ...]:
    """The text cross-attention taps to read, in forward order; all of the model's when none are asked for.

    Raises:
        BadInput: a name that the model does not have, or a model without text cross-attention.
    """
    attention = [tap for tap in known if tap.kind == "attention"]
    names = [tap.name for tap in attention]
    wanted = list(asked) if asked is not None else names
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise BadInput(
            f"attention taps of this model ({', '.join(names) or 'it has none'})",
            ", ".join(unknown) or "none",
            "Leave taps out to read them all; a model without text cross-attention cannot be used.",
        )
    return tuple(tap for tap in attention if tap.name in wanted)


def _check_count(prompts: Sequence[str] | None, count: int) -> None:
    if prompts is not None and len(prompts) != count:
        raise BadInput(f"{count} prompts, one per image", str(len(prompts)), "Leave prompts out.")


def _silent(names: Sequence[str], how_many: str) -> str:
    return (
        f"{how_many} cross-attention layer could be read (silent: {', '.join(names)}): packs that cache steps, merge "
        "tokens or compile the model skip them. Score with the model before such a node"
    )
