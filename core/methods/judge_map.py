"""Where the built-in judge finds a picture good or bad: its logit, taken apart exactly into views, layers and cells.

The judge's head has one hidden layer, so integrated gradients (Sundararajan, Taly, Yan, 2017, arXiv 1703.01365) from
the average training picture to this one have a closed form: along that line a hidden unit's input moves evenly, and the
mean slope of its GELU is the secant's. With it the logit is linear in the standardised statistics; those are means and
log deviations over cells, whose shares are exact (``core/taps/shares.py``). Nothing is left over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from ..errors import BadInput
from ..heatmap import HeatMap, Part
from ..images import reason_unscorable
from ..nets.efficientnet_lite import MAP_CHANNELS
from ..nets.judge import STATISTICS, describe
from ..nets.views import MOST_CROPS, SIDE, crops, global_view, grid
from ..taps.shares import shares

if TYPE_CHECKING:
    from torch import Tensor

    from ..nets.judge import JudgeHead, JudgeNetwork
    from .contract import Watch

_LOG_OFFSET = 1e-2  # of core/nets/judge.py:describe
_LONGEST = 2 * SIDE  # of core/nets/views.py:global_view


@torch.inference_mode()
def judge_map(
    network: JudgeNetwork,
    image: Tensor,
    *,
    device: torch.device | str | None = None,
    most: int = MOST_CROPS,
    least_side: int = 1,
    watch: Watch | None = None,
) -> HeatMap:
    """A picture [3, H, W] in [0, 1] → what each place adds to the judge's logit.

    Raises:
        BadInput: a picture that the judge does not score.
    """
    reason = reason_unscorable(image, least_side)
    if reason is not None:
        raise BadInput("a picture that can be scored", reason, "Give another picture.")
    views = [*crops(image, most).split(1), global_view(image)]
    maps = []
    for done, view in enumerate(views):
        maps.append(_features(network, view, device))
        if watch is not None:
            watch(done + 1, len(views))
    rows, head = torch.cat([_statistics(found) for found in maps]), network.head
    weights, base = _linear(head, describe(rows[None, :-1], rows[-1:]))
    height, width = int(image.shape[1]), int(image.shape[2])
    boxes = _boxes(height, width, most)
    parts = []
    for number, (found, box) in enumerate(zip(maps, boxes, strict=True)):
        whole = number == len(maps) - 1
        of_view = slice(STATISTICS, None) if whole else slice(0, STATISTICS)
        scale = 1.0 if whole else 1.0 / (len(maps) - 1)
        centre = head.centre.double().cpu()[of_view]
        parts += _parts(found, weights[of_view] * scale, centre, box, "whole" if whole else "crops")
    return HeatMap(tuple(parts), base, height, width, lambda raw: 100.0 * torch.sigmoid(raw), (0.0, 100.0))


def _features(network: JudgeNetwork, view: Tensor, device: torch.device | str | None) -> list[Tensor]:
    weight = network.backbone.stem.conv.weight
    view = view.to(device=weight.device if device is None else device, dtype=weight.dtype)
    return [found.double().cpu() for found in network.backbone.features(view)]


def _statistics(maps: list[Tensor]) -> Tensor:
    """As core/nets/judge.py:statistics, in fp64."""
    parts = []
    for values in maps:
        deviation, mean = torch.std_mean(values.flatten(2), dim=2, correction=0)
        parts += [mean, deviation]
    return torch.cat(parts, dim=1)


def _linear(head: JudgeHead, description: Tensor) -> tuple[Tensor, float]:
    """A description [1, 2 D] → weights [2 D] on (description - centre), fp64, and the logit at the centre.

    weights · (description - centre) + base is the head's own logit.
    """
    to = {"device": "cpu", "dtype": torch.float64}
    d, centre, scale = (value.to(**to) for value in (description[0], head.centre, head.scale))
    unit = (d - centre) / scale
    # Clipped at five deviations and weighted: as a factor on what comes in.
    kept = torch.where(
        unit == 0.0, head.weights.to(**to), head.standardised(description.to(head.centre.device))[0].to(**to) / unit
    )
    standardised = unit * kept
    matrix, bias = head.matrix().to(**to), head.hidden.bias.to(**to)
    inner = bias + matrix @ standardised
    run = inner - bias
    flat = run.abs() < 1e-9
    slope = (F.gelu(inner) - F.gelu(bias)) / torch.where(flat, torch.ones_like(run), run)
    at = bias.detach().clone()
    exact = 0.5 * (1.0 + torch.erf(at / 2.0**0.5)) + at * torch.exp(-at.square() / 2.0) / (2.0 * torch.pi) ** 0.5
    slope = torch.where(flat, exact, slope)
    out = head.out.weight.to(**to)[0]
    base = float(out @ F.gelu(bias) + head.out.bias.to(**to)[0])
    return ((out * slope) @ matrix) * kept / scale, base


def _parts(
    maps: list[Tensor], weights: Tensor, centre: Tensor, box: tuple[float, float, float, float], view: str
) -> list[Part]:
    """One view's maps → a grid of contributions for each."""
    parts, start = [], 0
    for number, (values, channels) in enumerate(zip(maps, MAP_CHANNELS, strict=True)):
        found = torch.zeros(values.shape[-2:], dtype=torch.float64)
        for reducer in ("mean", "logstd"):
            at = slice(start, start + channels)
            share = shares(values, reducer, centre[at], _LOG_OFFSET)
            found += torch.einsum("c,chw->hw", weights[at], share[0])
            start += channels
        parts.append(Part(found, *box, layer=f"{view} {number}"))
    return parts


def _boxes(height: int, width: int, most: int) -> list[tuple[float, float, float, float]]:
    """(top, left, height, width) of each crop and of the global view, in pixels of the mirrored picture."""
    tall, wide = max(height, SIDE), max(width, SIDE)
    boxes = [(float(top), float(left), float(SIDE), float(SIDE)) for top, left in grid(tall, wide, most)]
    keep = round(_LONGEST * min(tall, wide) / SIDE)
    top, left = max(tall - keep, 0) // 2, max(wide - keep, 0) // 2
    boxes.append((float(top), float(left), float(min(tall, keep)), float(min(wide, keep))))
    return boxes
