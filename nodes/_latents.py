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

    def take(self, places: Sequence[int]) -> list[Latent]:
        """Latents at these places: one dict in a list if they came as one, else one dict per image.

        ``noise_mask`` goes with them; ``batch_index`` keeps the place that each had, so that the same seed gives the
        same noise. Every other entry is passed on.
        """
        if len(self.dicts) == 1:
            return [_take(self.dicts[0], list(places))] if places else []
        where = [(latent, row) for latent in self.dicts for row in range(len(latent["samples"]))]
        return [_take(where[place][0], [where[place][1]]) for place in places]


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
    return Latents(tuple(latents))


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
