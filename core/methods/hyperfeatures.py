"""Hyperfeatures: what a denoiser computes of a picture, at several scales and noise levels, pooled.

After LGDM (Saini, Liao, Ye, Bovik, 2025, arXiv 2506.00327): read along the path that perceptual manifold guidance
walks; reimplemented, not by its authors. Pooling and the layers read are those of Diffusion Hyperfeatures, as a start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from ..backbone.schedule import noised
from ..errors import BadInput
from ..guidance.path import guided_path
from ..heads.layout import Layout
from ..images import as_list, reason_unscorable
from ..taps.outliers import without_outliers, without_position
from ..taps.recorder import Recorder, TapRequest
from ..taps.reducers import by_name, full, several
from .hyperfeature_options import HyperfeatureOptions
from .hyperfeature_progress import Progress
from .hyperfeature_views import PictureViews, picture_views, view_count

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Backbone, Conditioning, Tap
    from ..perceptual.contract import Psi
    from ..taps.recorder import Reducer
    from .contract import Images, Watch

#: Latent shapes whose position patterns are kept.
_PATTERNS = 4
_NAN_LATENT = "the VAE gave NaN or infinite latents (half precision overflows in some VAEs: try a bf16 or fp32 VAE)"
_NAN_FEATURES = "the model's features held NaN or infinite values (half precision overflowed: try bf16 or fp32)"


@dataclass(frozen=True, slots=True)
class Extracted:
    """One picture's hyperfeatures, or why there are none.

    Attributes:
        features: [D] in fp32 on the CPU, or ``None``.
        reason: ``None`` exactly when there are features.
        attributes: The views' number and the guidance's energies, for the score's record.
    """

    features: Tensor | None
    reason: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Row:
    """One view's features [D'] or reason."""

    features: Tensor | None
    reason: str | None
    energies: dict[str, list[float]]


class Hyperfeatures:
    """Pictures → hyperfeatures of one backbone.

    Deterministic in (picture, options, backbone); rows of a batch know nothing of each other.

    Args:
        backbone: The loaded model, with CLIP and VAE.
        options: Levels, taps, reducers, views, guidance.
        psi: The perceptual term's features, when the options' zeta2 is above 0.

    Raises:
        BadInput: taps that the model lacks, or no psi where one is needed.
    """

    def __init__(self, backbone: Backbone, options: HyperfeatureOptions | None = None, psi: Psi | None = None) -> None:
        self.backbone, self.options, self.psi = backbone, options or HyperfeatureOptions(), psi
        if self._guided and self.options.guidance.zeta2 > 0.0 and psi is None:
            raise BadInput(f"psi {self.options.psi}", "none", "Connect or name one, or set zeta2 to 0.")
        self.taps = self.options.of(backbone.family.taps)
        self.sigmas = self.options.sigmas(backbone.family.prediction)
        self.layout = Layout.of(
            (tap.name, level, reducer, view, tap.channels)
            for view in self.options.views
            for level in range(len(self.sigmas))
            for tap in self.taps
            for reducer in self.options.reducers
        )
        self._conditioning: Conditioning | None = None
        self._patterns: dict[tuple[int, int], list[dict[str, Tensor]]] = {}

    @property
    def _guided(self) -> bool:
        return self.options.kind == "guided_path"

    @property
    def psi_identity(self) -> str | None:
        """What psi is, where it takes part. That of the model itself is told by the model's own fingerprint."""
        psi = self.psi
        if psi is None or not self._guided or self.options.guidance.zeta2 == 0.0:
            return None
        return psi.name if psi.through_denoiser else psi.identity

    def settings(self) -> dict[str, Any]:
        """Everything beside backbone and picture that changes a value, as plain types; also a head's settings."""
        taps = [tap.name for tap in self.taps]
        return {**self.options.to_dict(), "taps": taps, "psi_identity": self.psi_identity}

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

    def extract_latents(self, latents: Tensor, *, watch: Watch | None = None) -> list[Extracted]:
        """As :meth:`extract`, from latents [N, C, h, w] of :meth:`takes_latents`' shape, without encoding."""
        tell = Progress(watch, len(latents))
        most = self.options.guidance.most_rows
        rows: list[_Row] = []
        with torch.no_grad():
            for first in range(0, len(latents), most):
                rows += self._rows(latents[first : first + most].float(), None, tell)
        kinds = tuple((0,) for _ in self.options.views)
        return [_joined(PictureViews((latents[place],), kinds), [row]) for place, row in enumerate(rows)]

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
        rows: dict[tuple[int, int], _Row] = {}
        for shape in dict.fromkeys(view.shape for view in pixels.values()):
            mates = [key for key in places if pixels[key].shape == shape]
            target = torch.stack([pixels[key] for key in mates])
            rows.update(zip(mates, self._rows(self.backbone.encode(target).float(), target, tell), strict=True))
        return {
            place: _joined(views, [rows[place, number] for number in range(len(views.pixels))])
            for place, views in made.items()
        }

    def _rows(self, z: Tensor, target: Tensor | None, tell: Progress) -> list[_Row]:
        """Latents [N, C, h, w] of one shape, and the pixels that they were encoded from → features of each row."""
        finite = z.flatten(1).isfinite().all(1)
        # A broken latent is read as zeros, so that it cannot reach its batch-mates, and gets its reason below.
        z = torch.where(finite.view(-1, 1, 1, 1), z, torch.zeros_like(z))
        patterns = self._pattern(z.shape[2:]) if self.options.position else []
        recorder = self._recorder(patterns)
        reasons, energies = self._forwards(z, target, recorder, tell.rows(len(z)))
        tell.finish(len(z))
        values, silent = self._gathered(recorder, len(z))
        found = []
        for place, ok in enumerate(finite.tolist()):
            reason = _NAN_LATENT if not ok else silent or reasons[place]
            if reason is None and not bool(values[place].isfinite().all()):
                reason = _NAN_FEATURES
            told = {name: levels[:, place].tolist() for name, levels in energies.items()}
            found.append(_Row(values[place] if reason is None else None, reason, told))
        return found

    def _forwards(
        self, z: Tensor, target: Tensor | None, recorder: Recorder, watch: Watch | None, *, guided: bool = True
    ) -> tuple[tuple[str | None, ...], dict[str, Tensor]]:
        """All levels into the recorder; reasons per row and energies by term."""
        conditioning = self._text().rows([0] * len(z))
        if self._guided:
            options = self.options.guidance if guided else replace(self.options.guidance, zeta1=0.0, zeta2=0.0)
            path = guided_path(
                self.backbone, z, target, options, self.psi, conditioning, recorder, watch=watch, keep_z=False
            )
            return path.reasons, path.energies
        prediction = self.backbone.family.prediction
        for level, (t, sigma) in enumerate(zip(self.options.guidance.timesteps, self.sigmas, strict=True)):
            noise = self.backbone.noise(z.shape[1:], self.options.guidance.seed + t).to(z)
            levels = torch.full((len(z),), sigma, device=z.device)
            self.backbone.features(noised(z, noise, sigma, prediction), levels, conditioning, recorder)
            if watch is not None:
                watch(level + 1, len(self.sigmas))
        return (None,) * len(z), {}

    def _text(self) -> Conditioning:
        if self._conditioning is None:
            self._conditioning = self.backbone.embed([self.options.prompt])
        return self._conditioning

    def _pooled(self, tap: Tap) -> Reducer:
        """What is kept of a tap's grid: a flat row of values."""
        return several(*(by_name(name) for name in self.options.reducers))

    def _recorder(self, patterns: list[dict[str, Tensor]]) -> Recorder:
        """A recorder that pools at once, outliers and position patterns taken away before."""
        running: list[Recorder] = []

        def pattern(tap: Tap) -> Tensor | None:
            # The recorder counts forwards, and its reducers run inside them.
            return patterns[running[0].calls][tap.name] if patterns else None

        def reducer(tap: Tap) -> Reducer:
            pooled = self._pooled(tap)
            found = pooled if self.options.limit is None else without_outliers(pooled, self.options.limit)
            return without_position(found, lambda: pattern(tap)) if patterns else found

        running.append(Recorder(tuple(TapRequest(tap, reducer(tap)) for tap in self.taps)))
        return running[0]

    def _pattern(self, shape: Sequence[int]) -> list[dict[str, Tensor]]:
        """By level and tap, what a grey picture of this latent shape leaves at each place [channels, h, w]."""
        h, w = shape
        if (h, w) not in self._patterns:
            stride = self.backbone.family.latent_stride
            z = self.backbone.encode(torch.full((1, 3, h * stride, w * stride), 0.5)).float()
            recorder = Recorder.of(self.taps, full)
            self._forwards(z, None, recorder, None, guided=False)
            levels: list[dict[str, Tensor]] = [{} for _ in self.sigmas]
            for record in recorder:
                levels[record.key.call][record.key.tap] = record.value.float()
            while len(self._patterns) >= _PATTERNS:
                del self._patterns[next(iter(self._patterns))]
            self._patterns[h, w] = levels
        return self._patterns[h, w]

    def _gathered(self, recorder: Recorder, rows: int) -> tuple[Tensor, str | None]:
        """Records → features [rows, D'] in fp32 on the CPU, or the reason why a tap is missing."""
        parts, silent = [], []
        for level in range(len(self.sigmas)):
            for tap in self.taps:
                records = recorder.rows(tap.name, level)
                if len(records) == rows:
                    parts.append(torch.stack([record.value for record in records]).float().cpu())
                elif tap.name not in silent:
                    silent.append(tap.name)
        if silent:
            names = ", ".join(silent)
            return torch.zeros(rows, 0), (
                f"some layers could not be read ({names}): packs that cache steps, merge blocks or compile the model "
                "skip them. Score with the model before such a node"
            )
        return torch.cat(parts, 1), None


def _joined(views: PictureViews, rows: Sequence[_Row]) -> Extracted:
    """One picture's views together; one view's reason is the picture's."""
    reason = next((row.reason for row in rows if row.reason is not None), None)
    energies = {name: [row.energies[name] for row in rows] for name in rows[0].energies}
    told = {"views": len(rows), **({"energies": energies} if energies else {})}
    if reason is not None:
        return Extracted(None, reason, told)
    return Extracted(views.join([row.features for row in rows if row.features is not None]), None, told)


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
