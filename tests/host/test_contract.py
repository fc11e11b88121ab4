"""One suite for every host: what core may expect of a backbone, on the same tiny weights in ComfyUI and diffusers."""

import pytest
import torch

pytestmark = pytest.mark.host

FAMILIES = (
    "sd15", "sd20_v", "sdxl", "sd3", "flux", "flux_schnell", "flux2", "wan21", "lumina2", "zimage", "qwen_image"
)  # fmt: skip
HOSTS = ("comfyui", "diffusers")


@pytest.fixture(scope="module")
def both(comfyui, diffusers, tiny, tiny_pipelines):
    """`both(family)` → the two hosts' backbones of one set of weights."""
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone

    kept = {}

    def make(family):
        if family not in kept:
            model, vae = tiny.model(family), tiny.vae(0, family=family)
            pipeline = tiny_pipelines.pipeline(family, model, vae)
            kept[family] = {
                "comfyui": ComfyBackbone(model, tiny.clip(family), vae),
                "diffusers": DiffusersBackbone(pipeline),
            }
        return kept[family]

    return make


def noised(backbone, z, sigma, seed=3):
    level, eps = sigma.view(-1, 1, 1, 1), backbone.noise(z.shape, seed)
    return (1.0 - level) * z + level * eps if backbone.family.prediction == "flow" else z + level * eps


def arguments(backbone, rows=2, h=6, w=10):
    z = 0.5 * backbone.noise((rows, backbone.family.latent_channels, h, w), seed=1)
    sigma = torch.linspace(0.3, 0.7, rows)
    return noised(backbone, z, sigma), sigma, backbone.embed(["a good photo", "a bad photo"]).rows([0, 1, 0][:rows])


def values(recorder):
    return {key: record.value for key, record in recorder.records.items()}


def everything(backbone):
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import full

    return Recorder.of(backbone.family.taps, full)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(6, 10), (5, 7)])
def test_both_hosts_agree(both, family, size):
    """Features, attention, estimate, fingerprint, latents and pixels of one set of weights."""
    hosts = both(family)
    comfy, other = hosts["comfyui"], hosts["diffusers"]
    assert comfy.family == other.family
    assert comfy.fingerprint.distance(other.fingerprint) < 1e-6
    pictures = torch.rand(2, 3, 67, 48, generator=torch.Generator().manual_seed(0))
    z = comfy.encode(pictures)
    torch.testing.assert_close(other.encode(pictures), z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.decode(z), comfy.decode(z), rtol=1e-4, atol=1e-4)
    if size == (5, 7) and comfy.family.prediction != "flow":
        return  # diffusers' U-Nets take even sides only
    if (
        family == "qwen_image"
    ):  # on odd numbers of tokens ComfyUI counts an image's places from one later than diffusers
        size = tuple(side + 2 * (-(-side // 2) % 2) for side in size)
    z = 0.5 * comfy.noise((2, comfy.family.latent_channels, *size), seed=1)
    sigma = torch.tensor([0.3, 0.7]) if comfy.family.prediction == "flow" else torch.tensor([0.3, 3.0])
    z_t, texts = noised(comfy, z, sigma), comfy.embed(["a good photo", "a bad photo"])
    found = []
    for backbone in (comfy, other):
        recorder = everything(backbone)
        with torch.no_grad():
            found.append((backbone.denoise(z_t, sigma, texts, recorder), values(recorder)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    assert found[0][1].keys() == found[1][1].keys()
    for key, value in found[0][1].items():
        near = 1e-4 * max(1.0, float(value.abs().max()) / 10.0)  # Wan's tokens reach the hundreds
        torch.testing.assert_close(value, found[1][1][key], rtol=1e-4, atol=near, msg=str(key))


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_reading_changes_nothing_and_stopping_early_neither(both, family, host):
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import full

    backbone = both(family)[host]
    call = arguments(backbone)
    whole = everything(backbone)
    with torch.no_grad():
        plain = backbone.denoise(*call)
        assert torch.equal(backbone.denoise(*call, whole), plain)
        assert not whole.silent()
        assert plain.dtype == torch.float32
        assert plain.shape == call[0].shape
        for tap in backbone.family.taps[::3]:
            some = Recorder.of([tap], full)
            backbone.features(*call, some)
            for record in some:
                assert torch.equal(record.value, whole.records[record.key].value)
                assert (record.grid.h, record.grid.w) == (-(-6 // tap.stride), -(-10 // tap.stride))


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_know_nothing_of_each_other(both, family, host):
    backbone = both(family)[host]
    z_t, sigma, texts = arguments(backbone, rows=3)
    with torch.no_grad():
        together = backbone.denoise(z_t, sigma, texts)
        alone = backbone.denoise(z_t[1:2], sigma[1:2], texts.rows([1]))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_text_that_matters_matters(both, family, host):
    """Another prompt, another estimate; word spans lie in the text, in order."""
    backbone = both(family)[host]
    z_t, sigma, _ = arguments(backbone, rows=1)
    with torch.no_grad():
        first, second = (backbone.denoise(z_t, sigma, backbone.embed([text])) for text in ("a cat", "a dog, blurry"))
    assert not torch.equal(first, second)
    spans = backbone.embed(["a good photo of cats"]).spans[0]
    assert list(spans) == [0, 1, 2, 3, 4]
    assert all(spans[place][1] == spans[place + 1][0] for place in range(4))


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_finite_differences(both, family, host):
    """Through the denoiser, and through the decoder."""
    backbone = both(family)[host]
    z_t, sigma, texts = arguments(backbone, rows=1)
    direction = backbone.noise(z_t.shape, 7)
    jobs = [
        (lambda z: backbone.denoise(z, sigma, texts), {"denoiser": True, "decoder": False}),
        (lambda z: backbone.decode(z, differentiable=True), {}),
    ]
    for run, where in jobs:
        with backbone.gradients(**where):
            z = z_t.clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(run(z).double().square().mean(), z)
            step = 1e-2
            up, down = (run(z_t + sign * step * direction).detach().double().square().mean() for sign in (1, -1))
        expected = (up - down) / (2 * step)
        assert float((slope * direction).sum()) == pytest.approx(float(expected), rel=2e-2, abs=1e-5)
        assert float(slope.abs().max()) > 0.0


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_stays_on_the_model(both, family, host):
    backbone = both(family)[host]
    network = backbone._model.model.diffusion_model if host == "comfyui" else backbone._unet
    before = {name: value.clone() for name, value in network.state_dict().items()}
    call = arguments(backbone)
    with torch.no_grad():
        backbone.denoise(*call, everything(backbone))
        backbone.features(*call, everything(backbone))
    for name, module in network.named_modules():
        assert not module._forward_hooks, name
        assert not module._forward_pre_hooks, name
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("host", HOSTS)
def test_noise_is_the_same_everywhere(both, host):
    backbone = both("sd15")[host]
    assert torch.equal(
        backbone.noise((2, 4, 3, 3), 5), torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(5))
    )


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_bad_input(both, family, host):
    from latent_critic.core.errors import BadInput

    backbone = both(family)[host]
    z_t, sigma, texts = arguments(backbone)
    with pytest.raises(BadInput, match="latents"):
        backbone.denoise(torch.zeros(2, 3, 8, 8), sigma, texts)
    with pytest.raises(BadInput, match="sigma"):
        backbone.denoise(z_t, sigma[:1], texts)
    with pytest.raises(BadInput, match="sigma"):
        backbone.denoise(z_t, sigma * torch.nan, texts)
    with pytest.raises(BadInput, match="latents"):
        backbone.denoise(z_t[:, :, None], sigma, texts)
    with pytest.raises(BadInput, match="list"):
        backbone.embed("one text")
    with pytest.raises(BadInput, match="8"):
        backbone.encode(torch.zeros(1, 3, 4, 40))


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_a_pipeline_that_runs_out_of_memory_goes_on_with_fewer_rows(both, family, monkeypatch, caplog):
    backbone = both(family)["diffusers"]
    call = arguments(backbone, rows=3)
    whole, expected = backbone._denoiser.estimate, backbone.denoise(*call)

    def small_card(x, *rest):
        if len(x) > 1:
            raise torch.cuda.OutOfMemoryError("test")
        return whole(x, *rest)

    monkeypatch.setattr(backbone._denoiser, "estimate", small_card)
    recorder = everything(backbone)
    torch.testing.assert_close(backbone.denoise(*call, recorder), expected, rtol=1e-4, atol=1e-5)
    assert not recorder.silent()
    assert {key.row for key in recorder.records} == {0, 1, 2}
    assert "Out of memory with 3 rows in one forward; going on with 1" in caplog.text
