"""diff_v2_iqa: what restoration by diffusion changes in a picture, read by two branches: VCG + λ · VDA.

Reimplemented after "Diffusion Model Based Visual Compensation Guidance and Visual Difference Analysis for No-Reference
Image Quality Assessment" (Wang et al., 2024, arXiv 2402.14401), not by its authors. Restorer and backbones are frozen;
the branches are trained (``latent-critic train diff-v2-iqa``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from ..errors import BadInput
from ..heads.check import Fit
from ..images import as_list
from ..records import Score, ScoreBatch, ScoreSpec
from .diff_v2_iqa_head import fingerprint_of
from .diff_v2_iqa_map import change_map, quality_map
from .diff_v2_iqa_reading import Reading, Seen

if TYPE_CHECKING:
    from torch import Tensor

    from ..heatmap import HeatMap
    from ..nets.diff_v2 import Parts
    from ..restoration.contract import Restorer
    from .contract import Images, Watch
    from .diff_v2_iqa_eyes import Eyes
    from .diff_v2_iqa_head import DiffHead

BLIND_TO = (
    "hands, faces, meaning, whether the picture fits its prompt, faults that the restorer leaves alone, whatever the "
    "pictures that it was trained on did not show"
)
#: Which map :meth:`DiffV2IQA.heat_map` gives.
Map = Literal["quality", "change"]


@dataclass(frozen=True, slots=True)
class DiffOptions:
    """What a user may choose.

    Attributes:
        override: Use a head that was trained with another restorer; its scores then only rank.
        most_rows: Views restored together at most.
        heat_map: ``quality``: what each place adds to the score; ``change``: how far restoration moved each place.
    """

    override: bool = False
    most_rows: int = 4
    heat_map: Map = "quality"

    def __post_init__(self) -> None:
        if self.most_rows < 1 or self.heat_map not in ("quality", "change"):
            got = f"{self.most_rows}, {self.heat_map!r}"
            raise BadInput("1 row or more, and a heat map of quality or change", got, "The defaults are 4, quality.")


class DiffV2IQA:
    """A trained head with a restorer; a :class:`~.contract.MapScorer`.

    Args:
        restorer: That the head was trained with.
        head: Branches and settings.
        eyes: The backbones that it reads.
        options: Rows and the like.
        place: Puts a network where the host wants it; ``None`` leaves it where it is.
        device: Where the networks are, without ``place``.

    Raises:
        MismatchedBackbone: the head was trained with another restorer or other backbones.
    """

    def __init__(
        self,
        restorer: Restorer,
        head: DiffHead,
        eyes: Eyes,
        options: DiffOptions | None = None,
        place: Callable[[nn.Module], Callable[..., Any]] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._options, self._head = options or DiffOptions(), head
        self._fit: Fit = head.check_restorer(restorer, override=self._options.override)
        head.check_eyes(eyes.identity)
        self._digest, self._eyes = head.digest(), dict(eyes.identity)
        put = place or (lambda network: network.to(device))
        self._nets = put(_Branches(head.nets))
        self._reading = Reading(restorer, put(eyes.network), head.settings, device, self._options.most_rows)

    @property
    def restorer(self) -> Restorer:
        """What restores."""
        return self._reading.restorer

    @property
    def calls(self) -> int:
        """Rows that went through the denoiser so far."""
        return self._reading.calls

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean: 0 to 100 where the head was trained on ratings and fits this restorer."""
        meta, calibrated = self._head.meta, self._fit.calibrated
        restorer = self._reading.restorer
        sketch = fingerprint_of(restorer)
        return ScoreSpec(
            name="diff_v2_iqa",
            scale=meta.scale if calibrated else None,
            calibrated_on=meta.calibrated_on if calibrated else None,
            centre=meta.centre,
            spread=meta.spread,
            needs=("image", "head"),
            size_policy=self._head.settings.size_policy(),
            blind_to=BLIND_TO,
            backbone=None if sketch is None else sketch.to_text(),
            settings={
                **self._head.settings.to_dict(),
                "branch": self._head.nets.shape.branch,
                "head": {"trained_on": meta.training_set, "pictures": meta.pictures},
                "weights": self._digest,
                "eyes": self._eyes,
                "restorer": {"name": restorer.name, **restorer.identity},
            },
        )

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """Score every image. ``prompts`` are not used; ``watch`` is called after every call of the denoiser.

        Each score's attributes hold the branches' shares, the mean change that restoration made (``change``, in
        percent of the range of pixels), the denoiser's calls and the restorer's noise levels.
        """
        found = as_list(images)
        if prompts is not None and len(prompts) != len(found):
            raise BadInput(f"{len(found)} prompts, one per image", str(len(prompts)), "Leave prompts out.")
        views = [self._reading.views(image) for image in found]
        listed = [view for one in views if not isinstance(one, str) for view in one]
        seen, scores = self._reading.see(listed, watch), []
        for place, one in enumerate(views):
            if isinstance(one, str):
                scores.append(Score(None, place, reason=one))
            else:
                scores.append(self._one(place, [next(seen) for _ in one]))
        return ScoreBatch(self.spec, tuple(scores))

    def heat_map(self, image: Tensor, *, watch: Watch | None = None) -> HeatMap:
        """Of one picture [3, H, W]: what each place adds to its score, or how far restoration moved it.

        Raises:
            BadInput: a picture that cannot be scored, or a head without VCG, whose other branch knows no places.
        """
        views = self._reading.views(as_list(image[None])[0])
        if isinstance(views, str):
            raise BadInput("a picture that can be scored", views, "Give another picture.")
        seen = list(self._reading.see(views, watch))
        reason = next((one.reason for one in seen if one.reason is not None), None)
        if reason is not None:
            raise BadInput("a picture that can be restored", reason, "Give another picture, or another restorer.")
        size = (int(image.shape[-2]), int(image.shape[-1]))
        if self._options.heat_map == "change":
            return change_map([one.change for one in seen], views, size)
        scale = self._head.meta.scale if self._fit.calibrated else None
        return quality_map(self._parts(seen), views, size, self._head.meta.centre, scale)

    @torch.no_grad()
    def _parts(self, seen: Sequence[Seen]) -> Parts:
        maps = [one.maps for one in seen if one.maps is not None]
        vectors = [one.vector for one in seen if one.vector is not None]
        return self._nets(*_stacked(maps, vectors))

    def _one(self, place: int, seen: Sequence[Seen]) -> Score:
        attributes: dict[str, Any] = {"denoiser_calls": sum(one.calls for one in seen), "views": len(seen)}
        if self._fit.warnings:
            attributes["warnings"] = list(self._fit.warnings)
        reason = next((one.reason for one in seen if one.reason is not None), None)
        if reason is not None:
            return Score(None, place, reason=reason, attributes=attributes)
        parts = self._parts(seen)
        attributes |= {
            "noise_levels": list(seen[0].noise_levels),
            "change": 100.0 * float(torch.stack([one.change for one in seen]).mean()),
            **_shares(parts),
        }
        value, scale = 100.0 * float(parts.score.mean()), self._head.meta.scale if self._fit.calibrated else None
        bounded = value if scale is None or value != value else min(max(value, scale[0]), scale[1])
        return Score.of(bounded, place, attributes=attributes)


class _Branches(nn.Module):
    """Both branches behind a call that takes tensors alone, as hosts' stand-ins do."""

    def __init__(self, nets: nn.Module) -> None:
        super().__init__()
        self.nets = nets

    def forward(self, maps: Tensor, vectors: Tensor) -> Parts:
        """An empty tensor stands for a branch that is not there."""
        return self.nets(maps if maps.numel() else None, vectors if vectors.numel() else None)


def _stacked(maps: Sequence[Tensor], vectors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return tuple(torch.stack(list(found)) if found else torch.zeros(0) for found in (maps, vectors))  # type: ignore[return-value]


def _shares(parts: Parts) -> Mapping[str, float]:
    """What each branch gives, in points."""
    found = {}
    if parts.vcg is not None:
        found["vcg"] = 100.0 * float(parts.vcg.total.mean())
    if parts.vda is not None:
        found["vda"] = 100.0 * float(parts.weight) * float(parts.vda.total.mean())
    return found
