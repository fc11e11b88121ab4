"""What belongs to a batch of images, filtered together: latents, masks, prompts. An empty side is blocked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comfy_execution.graph_utils import ExecutionBlocker

from ..core.selection.filtering import take
from ._inputs import Stack, images_at_door, masks_at_door, texts_at_door
from ._latents import Latents, latents_at_door


@dataclass(frozen=True, slots=True)
class Companions:
    """A batch of images and whatever came with it, all of the same length."""

    images: Stack
    latents: Latents | None
    masks: Stack | None
    prompts: list[str] | None

    def side(self, places: Sequence[int], why_empty: str | None) -> Side:
        """Everything at these places, ready for list outputs; an empty side is blocked, without a reason quietly.

        Latents and masks take the form of the images (one batch, or single ones), so that ComfyUI pairs them up.
        """
        prompts, batched = self.prompts, self.images.batched
        texts = None if prompts is None else take(prompts, places, len(self.images), "prompts")
        return Side(
            images=_branch(self.images.take(places), "images", why_empty),
            latents=_branch(None if self.latents is None else self.latents.take(places, batched), "latents", why_empty),
            masks=_branch(self._masks(places), "masks", why_empty),
            prompts=_branch(texts, "prompts", why_empty),
        )

    def _masks(self, places: Sequence[int]) -> list[Any] | None:
        if self.masks is None:
            return None
        if len(self.masks) == len(self.images):
            return self.masks.take(places, self.images.batched)
        return list(self.masks.singles) if places else []


@dataclass(frozen=True, slots=True)
class Side:
    """The list outputs of one side. What is empty or was never connected holds one blocker with the reason."""

    images: list[Any]
    latents: list[Any]
    masks: list[Any]
    prompts: list[Any]


def companions_at_door(
    images: Sequence[Any],
    latents: Sequence[Any] | None,
    masks: Sequence[Any] | None,
    prompts: Sequence[Any] | None,
) -> Companions:
    """Check everything before the first image is scored.

    Raises:
        BadInput: an input of the wrong kind, shape or length.
    """
    stack = images_at_door(images)
    count = len(stack)
    return Companions(
        stack, latents_at_door(latents, count), masks_at_door(masks, count), texts_at_door(prompts, count)
    )


def _branch(taken: list[Any] | None, what: str, why_empty: str | None) -> list[Any]:
    if taken is None:
        return [ExecutionBlocker(f"This output gives {what}, but no {what} are connected to the node's input.")]
    return taken or [ExecutionBlocker(why_empty)]
