"""DiffV2IQA's speed rows: the bare loop makes every call that the scorer makes, and the ratio is near 1."""

from collections import Counter

import torch
from latent_critic.core.benchmark.speed_diff_v2 import diff_v2_rows, timed


def test_the_bare_loop_makes_the_scorers_calls():
    scorer, bare = timed(64)
    counts = Counter()
    for name in ("_net", "_eyes", "_nets"):
        getattr(bare, name).register_forward_hook(lambda *_, name=name: counts.update([name]))
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    bare.score(image)
    alone = dict(counts)
    counts.clear()
    assert scorer.score([image])[0].ok
    assert dict(counts) == alone == {"_net": 4, "_eyes": 1, "_nets": 1}


def test_two_rows():
    over, linear = diff_v2_rows(1, 96)
    assert over.name == "diff_v2_iqa: over its bare calls"
    assert over.limit == 1.05
    assert 0.5 < over.ratio < 2.0
    assert linear.limit == 1.1
