"""LATENT dicts cut along the batch, as ComfyUI's own Latent From Batch does, but at any places in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..core.errors import BadInput

Latent = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Latents:
    """The latents of a batch of images: one dict for all, or a list of dicts."""

    dicts: tuple[Latent, ...]

    def take(self, places: Sequence[int], batched: bool | None = None) -> list[Latent]:
        """Latents at these places: one dict in a list if they came as one, else one dict per image.

        ``batched`` asks for the one or the other; latents that do not fit into one dict stay single.

        ``noise_mask`` goes with them; ``batch_index`` keeps the place that each had, so that the same seed gives the
        same noise. Every other entry is passed on.
        """
        together = len(self.dicts) == 1 if batched is None else batched
        if together and len(self.dicts) == 1:
            return [_take(self.dicts[0], list(places))] if places else []
        where = [(latent, row) for latent in self.dicts for row in range(len(latent["samples"]))]
        singles = [_take(where[place][0], [where[place][1]]) for place in places]
        return [_together(singles)] if together and _fit(singles) else singles


def latents_at_door(latents: Sequence[Any] | None, count: int) -> Latents | None:
    """LATENT input with one latent per image; ``None`` when nothing is connected.

    Raises:
        BadInput: not latents, or not as many as images.
    """
    if latents is None:
        return None
    for latent in latents:
        if not isinstance(latent, dict) or not hasattr(latent.get("samples"), "shape"):
            raise BadInput("a LATENT with samples", type(latent).__name__, "Connect the sampler's LATENT output.")
    found = sum(len(latent["samples"]) for latent in latents)
    if found != count:
        raise BadInput(
            f"{count} latents, one per image", str(found), "Connect the latents that these images were decoded from."
        )
    for latent in latents:
        index, rows = latent.get("batch_index"), len(latent["samples"])
        if index is not None and len(index) < rows:
            raise BadInput(f"a batch_index with {rows} places", str(len(index)), "Fix the node that made this LATENT.")
    return Latents(tuple(latents))


def _fit(singles: Sequence[Latent]) -> bool:
    """Whether single latents can lie in one dict: tensors of one shape, and everything else the same."""
    if not singles or not all(isinstance(latent["samples"], torch.Tensor) for latent in singles):
        return False
    first = singles[0]
    shapes = {tuple((name, tuple(latent[name].shape)) for name in _stacked(latent)) for latent in singles}
    others = first.keys() - {"batch_index", *_stacked(first)}
    return len(shapes) == 1 and all(
        latent.keys() == first.keys() and all(_same(latent[name], first[name]) for name in others) for latent in singles
    )


def _same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, str | int | float) and one == other)


def _together(singles: Sequence[Latent]) -> Latent:
    stacked = {name: torch.cat([latent[name] for latent in singles]) for name in _stacked(singles[0])}
    return {**singles[0], **stacked, "batch_index": [row for latent in singles for row in latent["batch_index"]]}


def _stacked(latent: Latent) -> tuple[str, ...]:
    """The entries of a single latent that hold one row per image."""
    mask = latent.get("noise_mask")
    return ("samples", "noise_mask") if isinstance(mask, torch.Tensor) and mask.ndim > 2 else ("samples",)


def _take(latent: Latent, rows: list[int]) -> Latent:
    samples = latent["samples"]
    taken = {**latent, "samples": samples[rows]}
    mask = latent.get("noise_mask")
    if isinstance(mask, torch.Tensor) and mask.ndim > 2 and len(mask) > 1:
        # A shorter stack of masks repeats over the batch: ComfyUI's own rule.
        taken["noise_mask"] = mask[[row % len(mask) for row in rows]]
    index = latent.get("batch_index")
    taken["batch_index"] = [row if index is None else index[row] for row in rows]
    return taken
