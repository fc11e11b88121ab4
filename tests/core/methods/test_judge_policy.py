"""The judge's view policies: which views are looked at, what the spec says, and bad names."""

from __future__ import annotations

import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.methods.judge import Judge
from latent_critic.core.nets.judge import describe
from latent_critic.core.nets.view_policy import POLICIES, most_crops, size_policy
from latent_critic.core.nets.views import SIZE_POLICY, crops, global_view


@pytest.fixture(scope="module")
def picture():
    """Noise on the left, flat on the right, so that it matters which crops are taken."""
    image = torch.rand(3, 520, 900, generator=torch.Generator().manual_seed(0))
    image[:, :, 450:] = 0.5
    return image


def test_fast_is_the_head_on_two_crops_and_the_whole(picture):
    judge = Judge.load(policy="fast")
    views, whole = crops(picture, 2), global_view(picture)
    assert len(views) == 2
    network = judge.network
    with torch.inference_mode():
        by_hand = network.head(describe(network.statistics(views)[None], network.statistics(whole)))
    assert judge.score([picture]).values()[0] == pytest.approx(float(by_hand), abs=1e-3)
    assert judge.score([picture]).values() != Judge.load().score([picture]).values()


def test_both_agree_where_one_crop_covers_the_picture(picture):
    small = picture[:, :256, :256]
    assert Judge.load(policy="fast").score([small]).values() == Judge.load().score([small]).values()


def test_the_full_policy_is_the_default_and_names_nothing_new():
    full, fast = Judge.load().spec, Judge.load(policy="fast").spec
    assert full.size_policy == SIZE_POLICY
    assert "policy" not in full.settings, "scores of earlier versions keep their digest"
    assert fast.settings["policy"] == "fast"
    assert fast.size_policy.startswith("up to 2 native-scale")
    assert full.digest != fast.digest


def test_policies():
    assert most_crops("full") > most_crops("fast") >= 1
    assert size_policy(most_crops("full")) == SIZE_POLICY
    assert set(POLICIES) == {"full", "fast"}
    with pytest.raises(BadInput, match="full, fast"):
        Judge.load(policy="quick")
