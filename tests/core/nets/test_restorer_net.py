"""The restorer's U-Net: sizes, what it predicts, how far a pixel sees."""

import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.nets.restorer import NARROW, RestorerNet, RestorerShape, build, level_embedding

LOCAL = RestorerShape(4, (1, 2), 1, (), 32, 0.0, 0, False, 1, "clean")


def _shaken(shape, seed=0):
    """A network whose last convolution, too, is random."""
    net = build(shape, seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return net


def _inputs(side=32, rows=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    condition, noisy = (torch.randn((rows, 3, side, side), generator=generator, dtype=torch.float64) for _ in range(2))
    return condition, noisy, torch.linspace(0.3, 0.9, rows, dtype=torch.float64)


@pytest.mark.slow
def test_the_published_size_runs_once():
    """98 million parameters, one small picture, four steps."""
    from latent_critic.core.restoration.sr3 import Sr3Options, Sr3Restorer

    net = build(RestorerShape())
    assert 90e6 < sum(parameter.numel() for parameter in net.parameters()) < 105e6
    assert net.first.weight.shape[:2] == (64, 6)
    assert (
        sum(type(module).__name__ == "_Attention" for module in net.modules()) == 2 + 3 + 1
    )  # side 16, and the middle
    restored = Sr3Restorer(net, Sr3Options(steps=4, tile=64, overlap=16)).restore(torch.rand(1, 3, 64, 64))
    assert restored.images.shape == (1, 3, 3, 64, 64)
    assert restored.reasons == (None,)


def test_the_narrow_one_fits_the_package():
    net = build(NARROW)
    assert 2 * sum(parameter.numel() for parameter in net.parameters()) < 400_000


def test_an_untrained_one_predicts_no_noise():
    shape = RestorerShape(8, (1, 2), 1, (16,), 32, 0.0, 4)
    condition, noisy, signal = _inputs()
    assert build(shape).double()(condition, noisy, signal).abs().max() == 0.0


def test_eps_and_clean_estimate_agree():
    """noisy = signal · clean + sqrt(1 - signal²) · eps, whatever the network says."""
    net = _shaken(RestorerShape(8, (1, 2), 1, (16,), 32, 0.0, 4))
    condition, noisy, signal = _inputs()
    rows = signal.view(-1, 1, 1, 1)
    with torch.no_grad():
        eps, clean = net(condition, noisy, signal), net.clean(condition, noisy, signal)
    torch.testing.assert_close(rows * clean + (1 - rows**2).sqrt() * eps, noisy)


@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 0.008), (torch.float16, 0.002)])
def test_half_precision_takes_the_last_noise_off(dtype, near):
    """At a noise of .04 signal² rounds to 1 in half precision, and a perfect network would clean nothing."""

    class Knowing(RestorerNet):
        def forward(self, condition, noisy, signal):
            return eps.to(noisy.dtype)

    draw = torch.Generator().manual_seed(0)
    clean, eps = torch.rand(1, 3, 16, 16, generator=draw), torch.randn(1, 3, 16, 16, generator=draw)
    signal = torch.tensor([0.99913])
    noisy = signal * clean + (1 - signal**2).sqrt() * eps
    net = Knowing(RestorerShape(8, (1, 2), 1, (), groups=4)).to(dtype)
    found = net.clean(clean.to(dtype), noisy.to(dtype), signal)
    assert found.dtype == dtype
    assert float((found.float() - clean).abs().max()) < near


def test_the_hint_leads_to_the_best_linear_estimate():
    """Two measurements of one value, of variances residual² and noise² / signal²: weighted by their inverses."""
    net = build(RestorerShape(4, (1,), 1, (), 32, 0.0, 0, False, 1, "clean", 0.2))
    condition, noisy, signal = _inputs()
    rows = signal.view(-1, 1, 1, 1)
    of_noise = (1 - rows**2) / rows**2
    wanted = (condition / 0.2**2 + noisy / rows / of_noise) / (1 / 0.2**2 + 1 / of_noise)
    torch.testing.assert_close(condition + net.hint(condition, noisy, signal), wanted)
    assert net.hint(condition, noisy, torch.zeros(2)).abs().max() == 0.0


def test_the_level_matters():
    net = _shaken(LOCAL)
    condition, noisy, signal = _inputs()
    with torch.no_grad():
        assert not torch.allclose(net(condition, noisy, signal), net(condition, noisy, signal.flip(0)))
    told = level_embedding(torch.linspace(0, 1, 50), 16)
    assert torch.cdist(told, told).add(torch.eye(50)).min() > 1e-3


@pytest.mark.parametrize("shape", [LOCAL, RestorerShape(4, (1, 2, 2), 1, (), 32, 0.0, 0, True, 2, "clean")])
def test_a_pixel_beyond_the_reach_is_not_seen(shape):
    net, side = _shaken(shape), 8 * -(-4 * shape.reach // 8)
    condition, noisy, signal = _inputs(side, 1)
    changed = noisy.clone()
    changed[..., 0, 0] += 10.0
    with torch.no_grad():
        difference = (net(condition, noisy, signal) - net(condition, changed, signal)).abs().amax((0, 1))
    at = difference.nonzero().max(0).values
    assert difference[0, 0] > 0
    assert at.max() <= shape.reach


def test_a_group_norm_sees_all():
    assert RestorerShape().reach is None


def test_dropout_is_off_unless_training():
    shape = RestorerShape(4, (1, 2), 1, (), 32, 0.5, 0, False, 1, "clean")
    net, inputs = _shaken(shape), _inputs()
    with torch.no_grad():
        assert torch.equal(net(*inputs), net(*inputs))
        net.train()
        assert not torch.equal(net(*inputs), net(*inputs))


def test_building_moves_nobodys_random_numbers():
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    one, other = build(LOCAL), build(LOCAL)
    assert torch.equal(torch.rand(1), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_sizes_survive_json():
    assert RestorerShape.from_dict(NARROW.to_dict()) == NARROW


@pytest.mark.parametrize(
    "wrong",
    [
        {"inner": 3}, {"multipliers": ()}, {"blocks": 0}, {"groups": 7}, {"dropout": 1.0}, {"predicts": "x"},
        {"native": 60},
    ],
)  # fmt: skip
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(BadInput):
        RestorerShape(**wrong)
