"""The pixel-space restorer on small real networks: identity, company, tiles, bad input, interrupts."""

import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.nets.restorer import NARROW, RestorerShape, build
from latent_critic.core.restoration.sr3 import Sr3Options, Sr3Restorer, load_sr3
from latent_critic.core.restoration.weights import RestorerFacts, save_restorer

LOCAL = RestorerShape(4, (1, 2), 1, (), 32, 0.0, 0, False, 1, "clean")
FEW = Sr3Options(steps=4, eta=0.0)


def _net(shape=LOCAL, amount=0.02, seed=0):
    net = build(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    return net


def _pictures(rows=3, height=40, width=56, seed=0):
    coarse = torch.rand((rows, 3, 5, 5), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def test_a_network_that_changes_nothing_gives_the_picture_back():
    """Untrained, the clean estimate is the input: d0 is it, d1 and d2 hold the noise of their levels."""
    pictures = _pictures()
    restored = Sr3Restorer(build(LOCAL), FEW).restore(pictures)
    assert restored.images.shape == (3, 3, 3, 40, 56)
    assert restored.images.dtype == torch.float32
    torch.testing.assert_close(restored.images[:, 0], pictures, atol=1e-6, rtol=0)
    assert [round(level, 2) for level in restored.noise_levels] == [0.04, 0.20, 0.35]
    assert restored.calls == (4,) * len(pictures)
    middle = torch.full((1, 3, 64, 64), 0.5)
    states = Sr3Restorer(build(LOCAL), FEW).restore(middle).images[0]
    for place in (1, 2):
        assert float(states[place].std()) == pytest.approx(0.5 * restored.noise_levels[place], rel=0.05)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_neither_batch_nor_order_matters(eta):
    restorer, pictures = Sr3Restorer(_net(), Sr3Options(steps=6, eta=eta)), _pictures()
    together = restorer.restore(pictures).images
    assert torch.equal(restorer.restore(pictures).images, together)
    torch.testing.assert_close(restorer.restore(pictures[[2, 0]]).images, together[[2, 0]], atol=1e-5, rtol=0)
    torch.testing.assert_close(restorer.restore(pictures[1:2]).images, together[1:2], atol=1e-5, rtol=0)


def test_only_the_seed_moves_the_noise():
    pictures = _pictures(1)
    torch.manual_seed(0)
    before = torch.rand(1)
    torch.manual_seed(0)
    first = Sr3Restorer(_net(), FEW).restore(pictures).images
    assert torch.equal(torch.rand(1), before)
    other = Sr3Restorer(_net(), Sr3Options(steps=4, eta=0.0, seed=1)).restore(pictures).images
    assert not torch.allclose(first[:, 2], other[:, 2], atol=1e-2)


def test_tiles_change_nothing_beyond_the_reach():
    """A quarter of the overlap counts nothing; where that is the network's reach, tiles are exact."""
    reach = LOCAL.reach
    assert reach is not None
    overlap = 4 * 2 * -(-reach // 2)
    side = 2 * overlap + 32
    pictures = _pictures(2, side + 70, 2 * side + 31)
    whole = Sr3Restorer(_net(), Sr3Options(steps=4, eta=0.0, tile=4096)).restore(pictures)
    tiled = Sr3Restorer(_net(), Sr3Options(steps=4, eta=0.0, tile=side, overlap=overlap)).restore(pictures)
    torch.testing.assert_close(tiled.images, whole.images, atol=2e-5, rtol=0)
    narrow = Sr3Restorer(_net(), Sr3Options(steps=4, eta=0.0, tile=32, overlap=8)).restore(pictures)
    assert not torch.allclose(narrow.images, whole.images, atol=1e-4)
    assert float((narrow.images - whole.images).abs().mean()) < 0.02
    assert whole.calls == (4, 4)
    counted = []
    net = _net()
    net.register_forward_hook(lambda *_: counted.append(1))
    one = Sr3Restorer(net, Sr3Options(steps=4, eta=0.0, tile=side, overlap=overlap)).restore(pictures[:1])
    assert one.calls == (len(counted),) == (4 * 2 * 3,)


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (8, 200), (41, 33)])
def test_any_size_comes_back_at_that_size(size):
    restored = Sr3Restorer(build(NARROW), FEW).restore(_pictures(1, *size))
    assert restored.images.shape[-2:] == size
    assert restored.images.isfinite().all()


def test_half_precision_is_near():
    pictures = _pictures()
    full = Sr3Restorer(_net(), FEW).restore(pictures).images
    half = Sr3Restorer(_net().bfloat16(), FEW).restore(pictures).images
    assert half.dtype == torch.float32
    assert float((full - half).abs().mean()) < 0.01


def test_out_of_memory_takes_smaller_tiles_and_in_the_end_gives_a_reason(monkeypatch):
    """Every forward of more than ``room`` pixels finds no memory, as on a small GPU: rows are halved, then tiles."""
    net, pictures, sides = _net(), _pictures(2, 96, 200), []
    options = Sr3Options(steps=4, eta=0.0, tile=192, overlap=16)
    whole = Sr3Restorer(net, options).restore(pictures)
    plain = net.clean

    def within(room):
        def clean(condition, noisy, signal):
            if condition.shape[0] * condition.shape[-2] * condition.shape[-1] > room:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            sides.append(tuple(condition.shape[-2:]))
            return plain(condition, noisy, signal)

        return clean

    monkeypatch.setattr(net, "clean", within(60 * 100))
    found = Sr3Restorer(net, options).restore(pictures)
    assert set(sides) == {(48, 48)}
    assert found.reasons == (None, None)
    assert found.calls == (4 * 3 * 6,) * 2
    assert float((found.images - whole.images).abs().max()) < 0.02
    monkeypatch.setattr(net, "clean", within(1))
    small = Sr3Restorer(net, options).restore(pictures)
    assert all("out of memory" in reason for reason in small.reasons)
    torch.testing.assert_close(small.images, pictures[:, None].expand(-1, 3, -1, -1, -1))

    def broken(*_):
        raise RuntimeError("another fault")

    monkeypatch.setattr(net, "clean", broken)
    with pytest.raises(RuntimeError, match="another fault"):
        Sr3Restorer(net, options).restore(pictures)


def test_what_cannot_be_restored_gets_a_reason_and_harms_nobody():
    restorer, pictures = Sr3Restorer(_net(), FEW), _pictures()
    broken = pictures.clone()
    broken[1, 0, 3, 3] = float("nan")
    restored = restorer.restore(broken)
    assert [reason is None for reason in restored.reasons] == [True, False, True]
    assert "NaN" in str(restored.reasons[1])
    assert restored.images.isfinite().all()
    torch.testing.assert_close(restored.images[0], restorer.restore(pictures).images[0], atol=1e-5, rtol=0)
    small = restorer.restore(_pictures(1, 7, 40))
    assert "at least 8" in str(small.reasons[0])


def test_a_diverging_network_gives_a_reason():
    pictures = _pictures(2)
    far = _net()
    with torch.no_grad():
        far.last[-1].bias.fill_(50.0)
    restored = Sr3Restorer(far, FEW).restore(pictures)
    assert all("diverged" in str(reason) for reason in restored.reasons)
    assert torch.equal(restored.images[:, 0], pictures)
    with torch.no_grad():
        far.last[-1].bias.fill_(float("nan"))
    restored = Sr3Restorer(far, FEW).restore(pictures)
    assert all("NaN" in str(reason) for reason in restored.reasons)
    assert restored.images.isfinite().all()


@pytest.mark.parametrize("images", [torch.rand(3, 8, 8), torch.rand(1, 4, 8, 8), torch.rand(0, 3, 8, 8), [1]])
def test_other_shapes_are_refused(images):
    with pytest.raises(BadInput):
        Sr3Restorer(build(LOCAL), FEW).restore(images)


@pytest.mark.parametrize("wrong", [{"steps": 3}, {"eta": 2.0}, {"tile": 8}, {"tile": 64, "overlap": 40}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BadInput):
        Sr3Options(**wrong)


def test_a_watcher_stops_within_one_call():
    class Stop(Exception):
        pass

    told = []

    def watch(done, total):
        told.append((done, total))
        if len(told) == 3:
            raise Stop

    with pytest.raises(Stop):
        Sr3Restorer(build(LOCAL), FEW).restore(_pictures(1), watch=watch)
    assert told == [(1, 4), (2, 4), (3, 4)]


def test_identity_names_what_decides():
    one = Sr3Restorer(_net(), FEW).identity
    assert one == Sr3Restorer(_net(), FEW).identity
    others = [
        Sr3Restorer(_net(seed=1), FEW),
        Sr3Restorer(_net(), Sr3Options(steps=5, eta=0.0)),
        Sr3Restorer(_net().bfloat16(), FEW),
    ]
    assert all(other.identity != one for other in others)


def test_a_file_holds_the_restorer_whole(tmp_path):
    net, file = _net(NARROW), tmp_path / "restorer.safetensors"
    save_restorer(file, net, RestorerFacts(NARROW, 6, 0.0, {"step": 3}))
    loaded = load_sr3(file)
    assert loaded.options == Sr3Options(steps=6, eta=0.0)
    assert loaded.identity == Sr3Restorer(net, loaded.options).identity
    pictures = _pictures(1)
    given = Sr3Restorer(net, loaded.options).restore(pictures).images
    torch.testing.assert_close(loaded.restore(pictures).images, given, atol=1e-2, rtol=0)
    for damage in (file.read_bytes()[:200], b""):
        file.write_bytes(damage)
        with pytest.raises(OSError, match="a restorer at"):
            load_sr3(file)
    with pytest.raises(OSError, match="no such file"):
        load_sr3(tmp_path / "none.safetensors")
