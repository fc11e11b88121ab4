"""The judge's losses against independent sums, and its head made small."""

import numpy as np
import pytest
import torch
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.methods.judge import SHIPPED, Judge
from latent_critic.core.nets.judge import DESCRIPTION, STATISTICS, JudgeHead, JudgeNetwork, statistics
from latent_critic.core.nets.judge_file import JudgeFacts, read, save
from latent_critic.core.train.judge_head import HeadSettings, fit_head
from latent_critic.core.train.judge_losses import (
    TuneLosses,
    fidelity_loss,
    ladder_loss,
    norm_in_norm,
    rated_loss,
)
from latent_critic.core.train.judge_reduce import reduced
from scipy.stats import norm

NO_MATES = torch.zeros(0, 2, dtype=torch.long)


def ratings(count=12, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return 100 * torch.rand(count, generator=draw), 100 * torch.rand(count, generator=draw)


def test_norm_in_norm_knows_a_line():
    scores, mos = ratings()
    assert float(norm_in_norm(3 * mos + 7, mos)) == pytest.approx(0.0, abs=1e-4)
    assert float(norm_in_norm(-mos, mos)) <= 1.0
    a, b = ((x - x.mean()) / (x - x.mean()).norm() for x in (scores.double(), mos.double()))
    assert float(norm_in_norm(scores, mos)) == pytest.approx(float((a - b).abs().sum() / (2 * 12**0.5)), abs=1e-4)
    flat = torch.full((12,), 5.0, requires_grad=True)
    norm_in_norm(flat, mos).backward()
    assert torch.isfinite(flat.grad).all()


def test_fidelity_is_that_of_thurstones_preferences():
    a, b = (side[:6] / 40 for side in ratings())
    p, q = norm.cdf(a / 2**0.5), norm.cdf(b / 2**0.5)
    wanted = np.mean(1 - np.sqrt(p * q) - np.sqrt((1 - p) * (1 - q)))
    assert float(fidelity_loss(a, b)) == pytest.approx(wanted, abs=1e-4)
    assert float(fidelity_loss(b, b)) == pytest.approx(0.0, abs=1e-4)
    far = torch.tensor([50.0], requires_grad=True)
    fidelity_loss(far, -far.detach()).backward()
    assert torch.isfinite(far.grad).all()


def test_a_ladder_pair_in_order_costs_less():
    good, bad = torch.tensor([60.0, 70.0]), torch.tensor([40.0, 30.0])
    margin = torch.tensor([0.3, 0.3])
    right, wrong = ladder_loss(good, bad, margin, 20.0), ladder_loss(bad, good, margin, 20.0)
    assert right < 0.1 < 1.0 < wrong
    assert float(ladder_loss(good[:0], bad[:0], margin[:0], 20.0)) == 0.0


@pytest.mark.parametrize("term", ["smooth", "mse", "norm_in_norm", "rank", "plcc", "fidelity"])
def test_every_term_of_a_rating_moves_the_scores_towards_it(term):
    scores, mos = ratings()
    weights = TuneLosses(**{"mse": 0.0, "plcc": 0.0} | {term: 1.0})
    mates = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]])
    at = scores.clone().requires_grad_()
    before = rated_loss(at, mos, mates, 25.0, weights)
    before.backward()
    moved = rated_loss(scores - 5.0 * at.grad / at.grad.norm(), mos, mates, 25.0, weights)
    assert moved < before
    assert rated_loss(mos, mos, mates, 25.0, weights) < before


def test_pairs_of_other_content_do_not_count():
    scores, mos = ratings()
    weights = TuneLosses(mse=0.0, plcc=0.0, fidelity=1.0)
    assert float(rated_loss(scores, mos, NO_MATES, 25.0, weights)) == 0.0


@pytest.mark.parametrize("wrong", [{"mse": -1.0}, {"mse": 0.0, "plcc": 0.0}, {"rank": float("nan")}])
def test_losses_that_say_nothing_are_refused(wrong):
    with pytest.raises(BadInput, match="weights"):
        TuneLosses(**wrong)


@pytest.fixture(scope="module")
def described():
    return torch.randn(60, DESCRIPTION, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def head(described):
    mos = 50 + 10 * described[:, :5].sum(dim=1)
    return fit_head(described, mos.clamp(0, 100), HeadSettings(members=2, width=8, epochs=4, batch=16))


def test_a_full_rank_changes_nothing_and_less_changes_more(head, described):
    whole = head(described)
    apart = [float((reduced(head, described, rank)(described) - whole).abs().mean()) for rank in (16, 8, 2)]
    assert apart[0] == pytest.approx(0.0, abs=1e-3)
    assert apart[0] < apart[1] < apart[2]
    small = reduced(head, described, 8)
    assert torch.allclose(small.matrix(), small.hidden.weight.double() @ small.squeeze.weight.double())
    for rank in (0, 17):
        with pytest.raises(BadInput, match="rank"):
            reduced(head, described, rank)
    with pytest.raises(BadInput, match="squeeze"):
        reduced(small, described, 4)


def test_the_squeeze_is_the_best_of_its_rank(head, described):
    """No other layer of that rank is nearer in its outputs: numpy's own truncation of the outputs."""
    inputs = head.standardised(described).double()
    outputs = (inputs @ head.hidden.weight.double().T).numpy()
    u, s, v = np.linalg.svd(outputs, full_matrices=False)
    best = np.square(outputs - (u[:, :4] * s[:4]) @ v[:4]).sum()
    small = reduced(head, described, 4)
    found = (inputs @ small.matrix().T).numpy()
    assert np.square(outputs - found).sum() == pytest.approx(best, rel=1e-3)


def test_a_small_head_is_written_read_and_mapped(head, described, tmp_path):
    network = read(SHIPPED)[0]
    small = JudgeNetwork(16, rank=8)
    small.backbone, small.head = network.backbone, reduced(head, described, 8)
    facts = JudgeFacts(16, "nobody", "noise", 60, 50.0, 10.0, {}, rank=8, format=2)
    save(tmp_path / "small.safetensors", small, facts)
    judge = Judge.load(path=tmp_path / "small.safetensors")
    image = torch.rand(3, 80, 70, generator=torch.Generator().manual_seed(0))
    score, found = judge.score([image]).values()[0], judge.heat_map(image)
    logit = found.base + sum(float(part.values.sum()) for part in found.parts)
    assert 100 / (1 + np.exp(-logit)) == pytest.approx(score, abs=1e-2)
    save(tmp_path / "wrong.safetensors", small, JudgeFacts(16, "nobody", "noise", 60, 50.0, 10.0, {}))
    with pytest.raises(UnreadableFile):
        Judge.load(path=tmp_path / "wrong.safetensors")


def test_statistics_of_some_maps_then_of_the_others():
    network = read(SHIPPED)[0].backbone
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    maps = network.features(pixels)
    for last in (0, 3, 7):
        after = network.onward(maps[last], last)
        assert all(torch.equal(a, b) for a, b in zip(after, maps[last + 1 :], strict=True))
    both = torch.cat([statistics(maps[:4]), statistics(maps[4:])], dim=1)
    assert torch.equal(both, statistics(maps))
    assert both.shape[1] == STATISTICS
    assert JudgeHead(4).squeeze is None
