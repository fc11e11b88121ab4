"""What a DiffV2IQA score costs beside the network calls that it cannot do without."""

from __future__ import annotations

import torch
from torch import Tensor

from ..methods.diff_v2_iqa import DiffV2IQA
from ..methods.diff_v2_iqa_eyes import load_eyes
from ..methods.diff_v2_iqa_head import untrained
from ..methods.diff_v2_iqa_settings import DiffSettings
from ..nets.restorer import NARROW, RestorerNet, build
from ..restoration.schedule import FEWEST, inference_levels
from ..restoration.sr3 import Sr3Options, Sr3Restorer
from .speed_row import SpeedRow, scorer_rows

_SIDE = 192
CALLS = (
    f"{FEWEST} calls of the narrow pixel-space restorer, 4 forwards of the judge's CNN up to stride 32, both branches "
    "once; random weights, nothing kept on disk"
)


def diff_v2_rows(repeats: int, side: int = _SIDE) -> list[SpeedRow]:
    """Two rows: over its bare calls, and linear in images.

    Args:
        repeats: Interleaved runs behind each median.
        side: Of the images, in pixels.
    """
    scorer, bare = timed(side)
    images = list(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    return scorer_rows(scorer, bare.score, images, repeats=repeats, device=torch.device("cpu"), calls=CALLS)


def timed(side: int) -> tuple[DiffV2IQA, Bare]:
    """A scorer of random weights, and its network calls."""
    net = build(NARROW, 0).eval().requires_grad_(False)
    restorer = Sr3Restorer(net, Sr3Options(steps=FEWEST, eta=0.0))
    settings = DiffSettings(side=side)
    eyes = load_eyes(settings)
    head = untrained(settings, restorer=restorer, eyes=eyes.identity)
    head.nets.begin_at(0.5)
    return DiffV2IQA(restorer, head, eyes), Bare(net, eyes.network, head.nets)


class Bare:
    """The network calls of one image's score, and no more.

    Calls: the restorer's network at each level, the backbones on the image and three pictures, both branches. What
    lies between them (noise, steps down, tiles, checks) is left out: the backbones are given the clean estimates.
    """

    def __init__(self, net: RestorerNet, eyes: torch.nn.Module, nets: torch.nn.Module) -> None:
        self._net, self._eyes, self._nets = net, eyes, nets
        self._signals = [torch.tensor([level.signal]) for level in inference_levels(FEWEST)]

    @torch.no_grad()
    def score(self, image: Tensor) -> float:
        """Reads one number back so that queued work is done."""
        given = image[None]
        condition = 2.0 * given - 1.0
        clean = [self._net.clean(condition, condition, signal) for signal in self._signals]
        restored = torch.stack(clean[-3:], dim=1).mul(0.5).add(0.5).clamp(0.0, 1.0)
        return 100.0 * float(self._nets(*self._eyes(given, restored)).score)
