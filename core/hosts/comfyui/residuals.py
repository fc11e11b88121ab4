"""A ComfyBackbone whose down blocks take residuals, through the place where ComfyUI's own T2I-adapters add theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock
from torch import Tensor

from ...backbone.contracts import Conditioning
from ...errors import BadInput, MismatchedBackbone
from ...taps.recorder import Key, Record, Recorder
from . import memory
from .backbone import ComfyBackbone
from .taps import need_unet


class ResidualComfyBackbone(ComfyBackbone):
    """See :class:`~....backbone.residuals.ResidualBackbone`; arguments and errors are :class:`ComfyBackbone`'s.

    Raises:
        UnsupportedFamily: also for a transformer, which has no down blocks.
    """

    def __init__(self, model: Any, clip: Any = None, vae: Any = None) -> None:
        super().__init__(model, clip, vae)
        need_unet(model.model.diffusion_model, self.family.name, "whose down blocks take residuals")
        self._adding = _Adding(last_blocks(model.model.diffusion_model))
        self._patcher.set_model_patch(self._adding.patch, "input_block_patch")

    def features_beside(
        self,
        z_t: Tensor,
        sigma: Tensor,
        conditioning: Conditioning,
        recorder: Recorder,
        residuals: Sequence[Tensor] | None,
    ) -> None:
        """As :meth:`features`, with residuals [N, C, h, w] added to every down level's last output.

        Raises:
            BadInput: not one residual for every down level.
        """
        if residuals is None:
            self.features(z_t, sigma, conditioning, recorder)
            return
        self._adding.check(residuals)

        def work(first: int, last: int) -> list[Record]:
            part, rows = Recorder(recorder.requests), range(first, last)
            with self._adding.now([values[first:last] for values in residuals]):
                self.features(z_t[first:last], sigma[first:last], conditioning.rows(rows), part)
            return [_moved(record, recorder.calls, first) for record in part]

        parts, _ = memory.in_chunks(len(z_t), self.rows_that_fit(z_t.shape[1:]), work)
        for record in (one for part in parts for one in part):
            recorder.put(record)
        recorder.calls += 1

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Texts → CLIP's projected text features, not normalised [N, W], float32 on the CPU.

        Raises:
            BadInput: no CLIP was given.
            MismatchedBackbone: a CLIP of several encoders, or without its projection.
        """
        if self._clip is None:
            raise BadInput("a CLIP", "none", "Connect one.")
        encoder = getattr(self._clip.cond_stage_model, "clip_l", None)
        projection = None if encoder is None else getattr(encoder.transformer, "text_projection", None)
        if (
            encoder is None
            or projection is None
            or self._family.text_layout != "clip_l"
            or _is_identity(projection.weight)
        ):
            remedy = "Load OpenAI's whole CLIP ViT-L/14 with Load CLIP: Stable Diffusion checkpoints leave it out."
            raise MismatchedBackbone("a CLIP with its text projection", "one without", remedy)
        found = []
        for text in prompts:
            tokens = self._clip.tokenize(text)
            found.append(self._clip.encode_from_tokens(tokens, return_pooled=True, return_dict=True)["pooled_output"])
        pooled = torch.cat(found).float().cpu()
        if encoder.return_projected_pooled:
            return pooled
        # ComfyUI leaves the projection out for SD 1.x, which has no use for it.
        return torch.nn.functional.linear(pooled, projection.weight.detach().float().cpu())


class _Adding:
    """The patch; silent unless residuals lie ready."""

    def __init__(self, levels: Sequence[int]) -> None:
        self._levels = {number: level for level, number in enumerate(levels)}
        self._residuals: Sequence[Tensor] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Adding:
        """Itself: ComfyUI deep-copies the options of every clone, and those must still add."""
        return self

    def check(self, residuals: Sequence[Tensor]) -> None:
        """Whether there is one for every level."""
        if len(residuals) != len(self._levels):
            expected = f"{len(self._levels)} residuals, one a down level"
            raise BadInput(expected, str(len(residuals)), "Use an adapter of this model.")

    def now(self, residuals: Sequence[Tensor]) -> _Adding:
        """A context in which they are added."""
        self._residuals = residuals
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._residuals = None

    def patch(self, h: Tensor, options: dict[str, Any]) -> Tensor:
        """After an input block, before its output is kept for the skip connection."""
        level = self._levels.get(options["block"][1])
        if self._residuals is None or level is None:
            return h
        residual = self._residuals[level]
        if len(residual) != len(h):
            # The forward has been split because memory ran out: which rows these are is known outside only.
            raise MemoryError("not enough memory for the rows that share these residuals")
        return h + residual.to(h)


def last_blocks(unet: Any) -> list[int]:
    """The number of each down level's last input block: the one before the level is made smaller."""
    shrinks = [number for number, block in enumerate(unet.input_blocks) if any(map(_shrinks, block))]
    return [*(number - 1 for number in shrinks), len(unet.input_blocks) - 1]


def _shrinks(layer: Any) -> bool:
    return isinstance(layer, Downsample) or (
        isinstance(layer, ResBlock) and bool(layer.updown) and isinstance(layer.h_upd, Downsample)
    )


def _moved(record: Record, call: int, first: int) -> Record:
    key = record.key
    return Record(Key(key.tap, call, key.branch, first + key.row), record.sigma, record.grid, record.value)


def _is_identity(weight: Tensor) -> bool:
    """ComfyUI puts an identity where a checkpoint has no projection."""
    return weight.shape[0] == weight.shape[1] and bool(
        torch.equal(weight.detach().float().cpu(), torch.eye(weight.shape[0]))
    )
