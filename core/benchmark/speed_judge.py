"""What the built-in judge costs beside its bare network, and how its time grows."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..methods.blend import Blend
from ..methods.judge import Judge
from ..nets.judge import describe
from ..nets.views import crops, global_view
from .speed_row import SpeedRow, time_row
from .timing import Job, interleaved

_SIDE = 512
_FEW = 8
_CALLS = "10 views, already cut, in forwards of as many as the judge takes, and 2 forwards of the head"


def judge_rows(repeats: int) -> list[SpeedRow]:
    """Four rows of times."""
    judge = Judge.load()
    images = list(torch.rand(2 * _FEW, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0)))
    two = images[:2]
    views = [(crops(image), global_view(image)) for image in two]
    twice = Blend([judge, judge])
    jobs: dict[str, Job] = {
        "two": lambda: judge.score(two),
        "bare": lambda: bare_judge(judge, views),
        "few": lambda: judge.score(images[:_FEW]),
        "many": lambda: judge.score(images),
        "singly": lambda: [judge.score([image]) for image in two],
        "blend": lambda: twice.score(two),
    }
    timings = interleaved(jobs, repeats)
    row = partial(time_row, timings)
    size = f"of {_SIDE}×{_SIDE} px, {repeats} interleaved runs"
    linear = f"{2 * _FEW} images over 2 × {_FEW} {size}"
    return [
        row("two", "bare", name="judge: over its bare network", limit=1.05, detail=f"2 images {size}; bare: {_CALLS}"),
        row("many", "few", factor=2, name="judge: linear in images", limit=1.1, detail=linear),
        row("two", "singly", name="judge: batched over one by one", limit=1.1, detail=f"2 images {size}"),
        row("blend", "two", factor=2, name="blend: over its two scorers", limit=1.05, detail=f"2 images {size}"),
    ]


@torch.inference_mode()
def bare_judge(judge: Judge, views: list[tuple[Tensor, Tensor]]) -> list[float]:
    """The network alone on views already cut, as many in a forward as the judge takes; one of the head a picture."""
    network = judge.network
    scores = []
    for cut, whole in views:
        parts = torch.cat([cut, whole]).contiguous(memory_format=torch.channels_last).split(judge.views)
        rows = torch.cat([network.statistics(part) for part in parts])
        scores.append(float(network.head(describe(rows[None, :-1], rows[-1:]))))
    return scores


def judge_bytes_row() -> SpeedRow:
    """Bytes of weights after scoring over those before: nothing is copied."""
    judge = Judge.load()
    before = _bytes(judge)
    judge.score(torch.rand(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0)))
    after = _bytes(judge)
    detail = f"{after} bytes of weights after scoring over {before} before"
    return SpeedRow("judge: bytes of its weights", after / before, 1.0, "bytes", detail)


def _bytes(judge: Judge) -> int:
    values = [*judge.network.parameters(), *judge.network.buffers()]
    return sum({value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in values}.values())
