"""A real ``accelerate launch`` of ``train genziqa`` with two processes on the CPU."""

import pytest
import torch
from latent_critic.core.methods.genziqa_file import load_genziqa


@pytest.mark.slow
def test_two_launched_processes_train_one_head(alone_and_launched):
    """The parameters after three steps are one process's, with losses that need the whole batch of five and a pair."""
    options = (
        "--context", "2", "--rank", "1", "--timesteps", "33", "--side", "64", "--steps", "3", "--batch", "5",
        "--validate-on", "6", "--calibrate-on", "8", "--share", "0.3", "--rate", "1e-2", "--by-group", "--one-level",
        "--rank-weight", "2", "--plcc-weight", "3", "--ladders", "1",
    )  # fmt: skip
    (_, alone, head), (told, launched, both) = alone_and_launched("genziqa", *options)
    assert told.count("step 3 in 2 processes") == 1
    # Adam's mean of gradients: by it a loss of half a batch would differ by a share of itself, rounding does not.
    for kind, apart in (("adam/exp_avg/", 1e-2), ("average/", 1e-3), ("weights/", 1e-3)):
        names = sorted(name for name in alone if name.startswith(kind))
        one, two = (torch.cat([state[name].flatten() for name in names]) for state in (alone, launched))
        assert float((one - two).norm()) < apart * float(one.norm())
    gains = [load_genziqa(file).settings.gain for file in (head, both)]
    assert gains[1] == pytest.approx(gains[0], rel=0.05)
