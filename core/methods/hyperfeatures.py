"""Hyperfeatures: what a denoiser computes of a picture, at several scales and noise levels, pooled.

After LGDM (Saini, Liao, Ye, Bovik, 2025, arXiv 2506.00327): read along the path that perceptual manifold guidance
walks; reimplemented, not by its authors. Pooling and the layers read are those of Diffusion Hyperfeatures, as a start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..errors import BadInput
from ..images import as_list, reason_unscorable
from .hyperfeature_progress import Progress
from .hyperfeature_rows import HyperfeatureRows, Row
from .hyperfeature_views import PictureViews, picture_views, view_count
from .masked_views import MaskedView, joined_by_area, mask_of, masked_views

if TYPE_CHECKING:
    from torch import Tensor

    from .contract import Images, Watch


@dataclass(frozen=True, slots=True)
class Extracted:
    """One picture's hyperfeatures, or why there are none.

    Attributes:
        features: [D] in fp32 on the CPU, or ``None``.
        reason: ``None`` exactly when there are features.
        attributes: The views' number and the guidance's energies, for the score's record; ``tile``, the side in cells,
            where memory forced guidance into tiles, which makes it an approximation.
    """

    features: Tensor | None
    reason: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


class Hyperfeatures(HyperfeatureRows):
    """Pictures → hyperfeatures of one backbone.

    Deterministic in (picture, options, backbone); rows of a batch know nothing of each other. Arguments are those of
    :class:`~.hyperfeature_rows.HyperfeatureRows`.
    """

    def extract(self, images: Images, *, watch: Watch | None = None) -> list[Extracted]:
        """Hyperfeatures of every picture, in order. A picture that has none gets a reason; the others are unharmed.

        ``watch`` is told of every forward, in hundredths of a view, and may raise to stop.
        """
        found = as_list(images)
        views = [self._views(image) for image in found]
        tell = Progress(watch, sum(count for count in views if isinstance(count, int)))
        done: dict[int, Extracted] = {}
        with torch.no_grad():
            for group in _groups(views, self.options.guidance.most_rows):
                made = {place: picture_views(found[place], self.backbone.family, self.options) for place in group}
                done.update(self._group(made, tell))
        reasons = {place: Extracted(None, count) for place, count in enumerate(views) if isinstance(count, str)}
        return [reasons[place] if place in reasons else done[place] for place in range(len(found))]

    def extract_masked(self, images: Images, masks: Tensor, *, watch: Watch | None = None) -> list[Extracted]:
        """As :meth:`extract`, of a region of each picture: its features, and guided by it alone.

        A view at a time: pooling follows each view's own part of the region. A region that is empty or too small is
        that picture's reason.

        Args:
            images: Pictures.
            masks: [M, H, W] from 0 to 1, one for all pictures or one for each; resized to its picture.
            watch: As in :meth:`extract`.

        Raises:
            BadInput: neither one mask nor one per picture.
        """
        found = as_list(images)
        views = [self._masked(image, mask_of(masks, place, len(found))) for place, image in enumerate(found)]
        tell = Progress(watch, sum(len(ones) for ones in views if not isinstance(ones, str)))
        with torch.no_grad():
            return [Extracted(None, ones) if isinstance(ones, str) else self._region(ones, tell) for ones in views]

    def _masked(self, image: Tensor, mask: Tensor) -> list[MaskedView] | str:
        """A picture's views of its region, or why it cannot be read."""
        count = self._views(image)
        return (
            count
            if isinstance(count, str)
            else masked_views(image, mask, self.backbone.family, self.options, self.taps)
        )

    def _region(self, views: list[MaskedView], tell: Progress) -> Extracted:
        rows: list[Row] = []
        for view in views:
            z = self.backbone.encode(view.pixels).float()
            rows += self._rows(z, view.pixels, tell, view.weight)
        return _joined(rows, lambda features: joined_by_area(views, features, self.options.views))

    def extract_latents(self, latents: Tensor, *, watch: Watch | None = None) -> list[Extracted]:
        """As :meth:`extract`, from latents [N, C, h, w] of :meth:`takes_latents`' shape, without encoding."""
        tell = Progress(watch, len(latents))
        most = self.options.guidance.most_rows
        rows: list[Row] = []
        with torch.no_grad():
            for first in range(0, len(latents), most):
                rows += self._rows(latents[first : first + most].float(), None, tell)
        kinds = tuple((0,) for _ in self.options.views)
        views = [PictureViews((latent,), kinds) for latent in latents]
        return [_joined([row], one.join) for row, one in zip(rows, views, strict=True)]

    def takes_latents(self, shape: Sequence[int]) -> bool:
        """Whether latents [C, h, w] of this shape are one view by themselves: square, at the size of a crop."""
        cells = self.options.size(self.backbone.family) // self.backbone.family.latent_stride
        return tuple(shape) == (self.backbone.family.latent_channels, cells, cells)

    def _views(self, image: Tensor) -> int | str:
        """How many views a picture has, or why it cannot be read."""
        family = self.backbone.family
        reason = reason_unscorable(image, family.latent_stride)
        if reason is not None:
            return reason
        try:
            return view_count(image.shape[1], image.shape[2], family, self.options)
        except BadInput as error:
            return str(error)

    def _group(self, made: dict[int, PictureViews], tell: Progress) -> dict[int, Extracted]:
        """Pictures whose views share forwards, by shape."""
        places = [(place, number) for place, views in made.items() for number in range(len(views.pixels))]
        pixels = {key: made[key[0]].pixels[key[1]] for key in places}
        rows: dict[tuple[int, int], Row] = {}
        for shape in dict.fromkeys(view.shape for view in pixels.values()):
            mates = [key for key in places if pixels[key].shape == shape]
            target = torch.stack([pixels[key] for key in mates])
            rows.update(zip(mates, self._rows(self.backbone.encode(target).float(), target, tell), strict=True))
        return {
            place: _joined([rows[place, number] for number in range(len(views.pixels))], views.join)
            for place, views in made.items()
        }


def _joined(rows: Sequence[Row], join: Callable[[Sequence[Tensor]], Tensor]) -> Extracted:
    """One picture's views together; one view's reason is the picture's."""
    reason = next((row.reason for row in rows if row.reason is not None), None)
    energies = {name: [row.energies[name] for row in rows] for name in rows[0].energies}
    told: dict[str, Any] = {"views": len(rows), **({"energies": energies} if energies else {})}
    tiles = [row.tile for row in rows if row.tile is not None]
    if tiles:
        told["tile"] = min(tiles)
    if reason is not None:
        return Extracted(None, reason, told)
    return Extracted(join([row.features for row in rows if row.features is not None]), None, told)


def _groups(views: Sequence[int | str], most: int) -> Iterator[list[int]]:
    """Places of pictures that share forwards: their views together are about ``most``."""
    group: list[int] = []
    held = 0
    for place, count in enumerate(views):
        if isinstance(count, str):
            continue
        if group and held + count > most:
            yield group
            group, held = [], 0
        group.append(place)
        held += count
    if group:
        yield group
