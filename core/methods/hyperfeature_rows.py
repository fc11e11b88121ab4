"""From latents to pooled features: a denoiser's taps at every level, along the guided path or each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ..backbone.schedule import noised
from ..errors import BadInput
from ..guidance.path import guided_path
from ..heads.layout import Layout
from ..taps.masked import by_name_within
from ..taps.outliers import without_outliers, without_position
from ..taps.recorder import Recorder, TapRequest
from ..taps.reducers import by_name, full, several
from .hyperfeature_options import HyperfeatureOptions
from .hyperfeature_progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Backbone, Conditioning, Tap
    from ..perceptual.contract import Psi
    from ..taps.recorder import Reducer
    from .contract import Watch

#: Latent shapes whose position patterns are kept.
_PATTERNS = 4
_NAN_LATENT = "the VAE gave NaN or infinite latents (half precision overflows in some VAEs: try a bf16 or fp32 VAE)"
_NAN_FEATURES = "the model's features held NaN or infinite values (half precision overflowed: try bf16 or fp32)"


@dataclass(frozen=True, slots=True)
class Row:
    """One view's features [D'] or reason; ``tile`` as in :class:`~..guidance.result.GuidedPath`."""

    features: Tensor | None
    reason: str | None
    energies: dict[str, list[float]]
    tile: int | None = None


class HyperfeatureRows:
    """Latents → hyperfeatures of one backbone; rows of a batch know nothing of each other.

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

    def _rows(self, z: Tensor, target: Tensor | None, tell: Progress, weight: Tensor | None = None) -> list[Row]:
        """Latents [N, C, h, w] of one shape, and the pixels that they were encoded from → features of each row.

        ``weight`` [1, 1, H, W] from 0 to 1, of a single row: how much each pixel counts, in pooling and in guidance.
        """
        finite = z.flatten(1).isfinite().all(1)
        # A broken latent is read as zeros, so that it cannot reach its batch-mates, and gets its reason below.
        z = torch.where(finite.view(-1, 1, 1, 1), z, torch.zeros_like(z))
        patterns = self._pattern(z.shape[2:]) if self.options.position else []
        recorder = self._recorder(patterns, weight)
        reasons, energies, tile = self._forwards(z, target, recorder, tell.rows(len(z)), weight)
        tell.finish(len(z))
        values, silent = self._gathered(recorder, len(z))
        found = []
        for place, ok in enumerate(finite.tolist()):
            reason = _NAN_LATENT if not ok else silent or reasons[place]
            if reason is None and not bool(values[place].isfinite().all()):
                reason = _NAN_FEATURES
            told = {name: levels[:, place].tolist() for name, levels in energies.items()}
            found.append(Row(values[place] if reason is None else None, reason, told, tile))
        return found

    def _forwards(
        self,
        z: Tensor,
        target: Tensor | None,
        recorder: Recorder,
        watch: Watch | None,
        weight: Tensor | None = None,
        *,
        guided: bool = True,
    ) -> tuple[tuple[str | None, ...], dict[str, Tensor], int | None]:
        """All levels into the recorder; reasons per row, energies by term, and the side of tiles, if any."""
        conditioning = self._text().rows([0] * len(z))
        if self._guided:
            options = self.options.guidance if guided else replace(self.options.guidance, zeta1=0.0, zeta2=0.0)
            path = guided_path(
                self.backbone,
                z,
                target,
                options,
                self.psi,
                conditioning,
                recorder,
                watch=watch,
                weight=weight,
                keep_z=False,
            )
            return path.reasons, path.energies, path.tile
        prediction = self.backbone.family.prediction
        for level, (t, sigma) in enumerate(zip(self.options.guidance.timesteps, self.sigmas, strict=True)):
            noise = self.backbone.noise(z.shape[1:], self.options.guidance.seed + t).to(z)
            levels = torch.full((len(z),), sigma, device=z.device)
            self.backbone.features(noised(z, noise, sigma, prediction), levels, conditioning, recorder)
            if watch is not None:
                watch(level + 1, len(self.sigmas))
        return (None,) * len(z), {}, None

    def _text(self) -> Conditioning:
        if self._conditioning is None:
            self._conditioning = self.backbone.embed([self.options.prompt])
        return self._conditioning

    def _pooled(self, tap: Tap, weight: Tensor | None) -> Reducer:
        """What is kept of a tap's grid: a flat row of values."""
        found = (by_name(name) if weight is None else by_name_within(name, weight) for name in self.options.reducers)
        return several(*found)

    def _recorder(self, patterns: list[dict[str, Tensor]], weight: Tensor | None = None) -> Recorder:
        """A recorder that pools at once, outliers and position patterns taken away before."""
        running: list[Recorder] = []

        def pattern(tap: Tap) -> Tensor | None:
            # The recorder counts forwards, and its reducers run inside them.
            return patterns[running[0].calls][tap.name] if patterns else None

        def reducer(tap: Tap) -> Reducer:
            pooled = self._pooled(tap, weight)
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
