"""The door: what ComfyUI hands to a node with ``is_input_list``, checked and turned.

Such a node gets every input as a list, widgets too. Images then come as one batch [N, H, W, C], or as a list of tensors
of any sizes; both become single images here, and go out in the form in which they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..core.errors import BadInput
from ..core.selection.filtering import one_per_image


def one(values: Sequence[Any] | None, name: str, default: Any = None) -> Any:
    """The single value of an input that makes no sense as a list.

    Raises:
        BadInput: a list of different values was connected.
    """
    if not values:
        return default
    if any(value is not values[0] and value != values[0] for value in values[1:]):
        raise BadInput(f"one value for {name}", f"a list of {len(values)}", "Connect a single value to it.")
    return values[0]


@dataclass(frozen=True, slots=True)
class Stack:
    """Images or masks: single ones with a leading dimension of 1, and whether they came as one batch tensor."""

    singles: tuple[torch.Tensor, ...]
    batched: bool

    def __len__(self) -> int:
        return len(self.singles)

    def take(self, places: Sequence[int], batched: bool | None = None) -> list[torch.Tensor]:
        """The images at these places in this order, as one batch in a list or as single images.

        They come in the form in which they came, or as ``batched`` says; different sizes stay single.
        """
        picked = [self.singles[place] for place in places]
        together = self.batched if batched is None else batched
        return [torch.cat(picked)] if together and len({single.shape for single in picked}) == 1 else picked

    def channels_first(self) -> list[torch.Tensor]:
        """Views [C, H, W], as core takes them."""
        return [single[0].movedim(-1, 0) for single in self.singles]


def images_at_door(images: Sequence[Any]) -> Stack:
    """IMAGE input → single images [1, H, W, C].

    Raises:
        BadInput: no images, or a tensor that is no image.
    """
    stack = _stack(images, 4, "an IMAGE [N, height, width, channels]")
    if not stack.singles:
        raise BadInput("at least one image", "none", "Check that the node before this one gives images.")
    for place, single in enumerate(stack.singles):
        if single.shape[-1] not in (1, 2, 3, 4) or min(single.shape[1:3]) < 1:
            raise BadInput(
                "images of 1 to 4 channels in the last dimension",
                f"shape {list(single.shape)} at place {place}",
                "Connect an IMAGE output; a mask needs Convert Mask to Image first.",
            )
    return stack


def masks_at_door(masks: Sequence[Any] | None, count: int) -> Stack | None:
    """MASK input → single masks [1, H, W]: one per image, or one for all; ``None`` when nothing is connected."""
    if masks is None:
        return None
    flat = [mask[None] if isinstance(mask, torch.Tensor) and mask.ndim == 2 else mask for mask in masks]
    stack = _stack(flat, 3, "a MASK [N, height, width]")
    one_per_image(stack.singles, count, "masks")
    return stack


def texts_at_door(texts: Sequence[Any] | None, count: int, what: str = "prompts") -> list[str] | None:
    """STRING list → texts: one per image, or one for all; ``None`` when nothing is connected."""
    if texts is None:
        return None
    one_per_image(texts, count, what)
    return [str(text) for text in texts]


def seeds_at_door(seeds: Sequence[Any] | None, count: int) -> list[int] | None:
    """INT list → seeds: one per image, or one for all; ``None`` when nothing is connected.

    Raises:
        BadInput: something else than whole numbers, or not as many as images.
    """
    return None if seeds is None else [_seed(seed) for seed in one_per_image(seeds, count, "seeds")]


def _seed(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput("whole numbers as seeds", repr(value), "Connect the sampler's seed to it.") from error


def _stack(tensors: Sequence[Any], dimensions: int, expected: str) -> Stack:
    for tensor in tensors:
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != dimensions:
            got = f"shape {list(tensor.shape)}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise BadInput(expected, got, "Check what is connected to this input.")
    singles = tuple(tensor[place : place + 1] for tensor in tensors for place in range(len(tensor)))
    return Stack(singles, batched=len(tensors) == 1)
