"""Restoration with the loaded model, on a tiny real model of every family."""

import pytest
import torch
from latent_critic.core.errors import BadInput

pytestmark = pytest.mark.host

FAMILIES = (
    "sd15", "sd20", "sd20_v", "sdxl", "sd3", "flux", "flux_schnell", "flux2", "lumina2", "zimage", "qwen_image", "wan21"
)  # fmt: skip
SHORT = {"timesteps": (112, 41, 1)}


@pytest.fixture(scope="module")
def loaded(comfyui, tiny, tiny_clip):
    """`loaded(family)` → a backbone."""
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    return lambda family: ComfyBackbone(tiny.model(family), tiny_clip(family), tiny.vae(0, family=family))


def _restorer(backbone, **settings):
    from latent_critic.core.restoration.shared import SharedOptions, SharedRestorer

    return SharedRestorer(backbone, SharedOptions(**{**SHORT, **settings}))


def _pictures(rows=2, height=64, width=64):
    coarse = torch.rand((rows, 3, 5, 5), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_restores(family, loaded):
    """At the picture's own size, the same twice and alone, with equal noise levels in every family."""
    restorer, pictures = _restorer(loaded(family)), _pictures(2, 70, 90)
    restored = restorer.restore(pictures)
    assert restored.images.shape == (2, 3, 3, 70, 90)
    assert restored.reasons == (None, None)
    assert [round(level, 2) for level in restored.noise_levels] == [0.04, 0.20, 0.35]
    assert restored.calls == (3,) * len(restored.images)
    assert float(restored.images.min()) >= 0.0
    assert float(restored.images.max()) <= 1.0
    again = restorer.restore(pictures)
    assert torch.equal(restored.images, again.images)
    alone = restorer.restore(pictures[1:])
    torch.testing.assert_close(alone.images, restored.images[1:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["sd15", "sd3"])
def test_the_states_hold_the_noise_of_their_levels(family, loaded, monkeypatch):
    """With a decoder that shows the latent itself: sqrt(1 - alpha_bar) · eps around sqrt(alpha_bar) · z."""
    backbone = loaded(family)
    channels = backbone.family.latent_channels
    seen = []

    def decode(latents, **_):
        seen.append(latents)
        return torch.zeros((len(latents), 3, 64, 64))

    z = torch.zeros((1, channels, 8, 8))
    monkeypatch.setattr(type(backbone), "encode", lambda *_, **__: z)
    monkeypatch.setattr(type(backbone), "decode", lambda _, latents, **__: decode(latents))
    restored = _restorer(backbone, measurement=0.0).restore(_pictures(1))
    states = {round(level, 2): state for level, state in zip(restored.noise_levels, seen, strict=True)}
    eps = backbone.noise(z.shape[1:], 0)
    torch.testing.assert_close(states[0.35], restored.noise_levels[2] * eps[None], atol=1e-4, rtol=1e-4)


def test_it_is_the_guided_path(loaded):
    """d0 is the decoded end of the same path, taken by itself."""
    from latent_critic.core.guidance.path import guided_path

    backbone, pictures = loaded("sd15"), _pictures()
    restorer = _restorer(backbone)
    text = backbone.embed([""]).rows([0, 0])
    path = guided_path(backbone, backbone.encode(pictures), pictures, restorer.options.guidance(), None, text)
    wanted = backbone.decode(path.z).clamp(0, 1)
    restored = restorer.restore(pictures)
    torch.testing.assert_close(restored.images[:, 0], wanted, atol=1e-5, rtol=0)
    assert path.states == ()
    assert path.calls.denoiser == restored.calls[0]


@pytest.mark.parametrize("where", ["pixels", "latent"])
def test_a_stronger_measurement_stays_nearer(loaded, where):
    """To the picture; held in the latent, to what the VAE makes of it."""
    backbone, pictures = loaded("sd15"), _pictures()
    with torch.no_grad():
        wanted = pictures if where == "pixels" else backbone.decode(backbone.encode(pictures)).float().clamp(0, 1)
    wanted = wanted[..., : pictures.shape[-2], : pictures.shape[-1]]
    free, held = (
        _restorer(backbone, measurement=strength, where=where).restore(pictures).images[:, 0]
        for strength in (0.0, 0.03)
    )
    assert float((held - wanted).square().mean()) < float((free - wanted).square().mean())


def test_bad_rows_and_settings(loaded):
    restorer = _restorer(loaded("sd15"))
    broken = _pictures()
    broken[0, 0, 0, 0] = float("inf")
    restored = restorer.restore(broken)
    assert [reason is None for reason in restored.reasons] == [False, True]
    torch.testing.assert_close(restored.images[1:], restorer.restore(_pictures()[1:]).images, atol=1e-4, rtol=0)
    assert "at least 8" in str(restorer.restore(_pictures(1, 4, 64)).reasons[0])
    assert restorer.restore(_pictures(1, 8, 200)).images.shape[-2:] == (8, 200)
    for wrong in ({"kept": (41, 111)}, {"kept": (112, 41)}, {"measurement": -1.0}):
        with pytest.raises(BadInput):
            _restorer(loaded("sd15"), **wrong)
    with pytest.raises(BadInput, match="psi"):
        _restorer(loaded("sd15"), perceptual=0.1)


def test_a_diverging_model_gives_a_reason(loaded, monkeypatch):
    backbone = loaded("sd15")
    monkeypatch.setattr(type(backbone), "denoise", lambda _, z, *__: torch.full_like(z, float("nan")))
    restored = _restorer(backbone).restore(_pictures())
    assert all("NaN" in str(reason) for reason in restored.reasons)
    assert torch.equal(restored.images[:, 1], _pictures())


def test_a_watcher_stops_it_and_sees_all_pictures(loaded):
    told = []
    _restorer(loaded("sd15")).restore(_pictures(9, 16, 16), watch=lambda done, total: told.append((done, total)))
    shares = [done / total for done, total in told]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)

    class Stop(Exception):
        pass

    def stop(done, total):
        raise Stop

    with pytest.raises(Stop):
        _restorer(loaded("sd15")).restore(_pictures(), watch=stop)


def test_the_model_is_untouched_and_named(loaded, tiny, tiny_clip, weights_of):
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    model = tiny.model("sd15")
    before = weights_of(model)
    restorer = _restorer(ComfyBackbone(model, tiny_clip("sd15"), tiny.vae(0)))
    with torch.inference_mode():
        restorer.restore(_pictures())
    after = weights_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert restorer.identity == _restorer(ComfyBackbone(model, tiny_clip("sd15"), tiny.vae(0))).identity
    other = ComfyBackbone(tiny.model("sd15", 1), tiny_clip("sd15"), tiny.vae(0))
    assert _restorer(other).identity != restorer.identity
    assert _restorer(ComfyBackbone(model, tiny_clip("sd15"), tiny.vae(0)), seed=1).identity != restorer.identity
