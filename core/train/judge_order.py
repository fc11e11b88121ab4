"""How many steps of growing damage a head orders right, held-back contents alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from ..benchmark.bootstrap import bootstrap_interval
from ..nets.judge import JudgeHead
from .judge_changes import LadderRows


@torch.inference_mode()
def ordered(head: JudgeHead, tested: LadderRows) -> dict[str, float]:
    """In how many neighbouring rungs the score falls, with an interval over groups of contents."""
    scores = head(tested.described).tolist()
    falls, groups, start = [], [], 0
    for ladder in tested.ladders:
        mine = scores[start : start + len(ladder)]
        falls += [later < earlier for earlier, later in pairwise(mine)]
        groups += [ladder[-1].group] * (len(ladder) - 1)
        start += len(ladder)
    values = np.array(falls, dtype=float)
    low, high = bootstrap_interval(lambda places: float(values[places].mean()), len(values), groups)
    return {"share": float(values.mean()), "low": low, "high": high, "n": len(values)}
