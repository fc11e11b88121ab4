"""What comes into a restorer, checked once; what leaves it for a picture that could not be restored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..errors import BadInput
from ..images import reason_unscorable

if TYPE_CHECKING:
    from torch import Tensor

#: Along the shorter side.
LEAST = 8


def checked(images: Tensor, least: int = LEAST) -> tuple[Tensor, list[str | None]]:
    """Pictures float32 [N, 3, H, W] in [0, 1], grey in place of what cannot be restored, and why it cannot.

    Raises:
        BadInput: no pictures, or another shape (alpha has to be dropped before).
    """
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        got = f"shape {list(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
        raise BadInput("pictures [N, 3, H, W]", got, "Add the batch dimension, drop alpha, leave out empty pictures.")
    pictures = images.detach().float()
    reasons = [reason_unscorable(picture, least) for picture in pictures]
    if any(reasons):
        broken = torch.tensor([reason is not None for reason in reasons], device=pictures.device).view(-1, 1, 1, 1)
        pictures = torch.where(broken, torch.full_like(pictures, 0.5), pictures)
    return pictures.clamp(0.0, 1.0), reasons


def kept_rows(found: Tensor, pictures: Tensor, reasons: list[str | None]) -> Tensor:
    """Restorations [N, 3, 3, H, W], the input three times where there is a reason."""
    if not any(reasons):
        return found
    broken = torch.tensor([reason is not None for reason in reasons], device=found.device).view(-1, 1, 1, 1, 1)
    return torch.where(broken, pictures[:, None].to(found), found)
