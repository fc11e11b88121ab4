"""A real ``accelerate launch`` of ``train diff-v2-iqa`` with two processes on the CPU, the model as restorer."""

import pytest
import torch
from latent_critic.core.methods.diff_v2_iqa_file import load_diff_v2


@pytest.mark.slow
def test_two_launched_processes_train_one_head(alone_and_launched):
    """The weights after three steps are one process's: each took half of every step's pictures."""
    options = "--steps 3 --batch 4 --validate-on 6 --share 0.3 --rate 1e-2 --by-group --side 32 --drop 0 --limit 12"
    (_, alone, head), (told, launched, both) = alone_and_launched("diff-v2-iqa", *options.split())
    assert told.count("step 3") == 1
    names = [name for name in alone if not name.startswith("adam/")]
    assert names
    for name in names:
        torch.testing.assert_close(launched[name], alone[name], rtol=1e-3, atol=1e-3)
    one, other = (load_diff_v2(file).meta for file in (both, head))
    assert one.validation["n"] == other.validation["n"]
    assert one.identity == other.identity
    assert one.identity["restorer.name"] == "shared"
    assert one.family
