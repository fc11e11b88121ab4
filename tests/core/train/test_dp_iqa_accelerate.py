"""A real ``accelerate launch`` of ``train dp-iqa`` with two processes on the CPU."""

import pytest
import torch
from latent_critic.core.methods.dp_iqa_file import load_dp_iqa

#: Three sentences are enough.
_SENTENCES = """
import latent_critic.core.methods.dp_iqa_text as texts
texts.sentences = lambda: ("a photo of a human", "a photo of a plant", "a photo of night")
"""


@pytest.mark.slow
def test_two_launched_processes_train_one_head(alone_and_launched):
    """The weights after three steps are one process's: each took about half of every step's pictures.

    The losses look at the whole batch, whose five pictures do not go into two alike.
    """
    sizes = "--width 8 --kernel 1 --squeeze 4 --thin 4 --cells 4 --hidden 8 --text-hidden 4 --image-width 4 --side 64"
    options = "--steps 3 --batch 5 --validate-on 6 --share 0.3 --rate 1e-2 --by-group --rank-weight 1 --plcc-weight 1"
    (_, alone, head), (told, launched, both) = alone_and_launched(
        "dp-iqa", *options.split(), *sizes.split(), first=_SENTENCES
    )
    assert told.count("step 3") == 1
    names = [name for name in alone if not name.startswith("adam/")]
    assert names
    for name in names:
        torch.testing.assert_close(launched[name], alone[name], rtol=1e-3, atol=1e-3)
    found, expected = (load_dp_iqa(file).meta.validation["rmse"] for file in (both, head))
    assert found == pytest.approx(expected, abs=0.1)
