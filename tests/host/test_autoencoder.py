"""Pixels to latents and back through a real AutoencoderKL."""

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_encode_is_the_posteriors_mode_in_the_models_scale(make_backbone, tiny_vae, pixels, family):
    backbone, network = make_backbone(family), tiny_vae(0).first_stage_model
    with torch.no_grad():
        mean, _ = network.quant_conv(network.encoder(pixels * 2 - 1)).chunk(2, dim=1)
    scale = {"sd15": 0.18215, "sdxl": 0.13025}[family]
    torch.testing.assert_close(backbone.encode(pixels), mean * scale, rtol=1e-4, atol=1e-5)


def test_encode_is_deterministic_and_a_sample_follows_its_seed(make_backbone, tiny_vae, pixels):
    backbone, network = make_backbone(), tiny_vae(0).first_stage_model
    mode = backbone.encode(pixels)
    assert torch.equal(mode, backbone.encode(pixels))
    state = torch.random.get_rng_state()
    drawn = backbone.encode(pixels, sample=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(drawn, backbone.encode(pixels, sample=7))
    assert not torch.equal(drawn, backbone.encode(pixels, sample=8))
    with torch.no_grad():
        _, log_variance = network.quant_conv(network.encoder(pixels * 2 - 1)).chunk(2, dim=1)
    in_units = (drawn - mode) / 0.18215 / (0.5 * log_variance).exp()
    assert abs(float(in_units.mean())) < 0.1
    assert abs(float(in_units.std()) - 1.0) < 0.1
    assert not network.regularization._forward_pre_hooks


@pytest.mark.parametrize("low_high", [(0.0, 1.0), (-1.0, 1.0), (-2.0, 2.5)])
def test_value_range(make_backbone, tiny_vae, pixels, low_high):
    low, high = low_high
    network = tiny_vae(0).first_stage_model
    with torch.no_grad():
        mean, _ = network.quant_conv(network.encoder(low + (high - low) * pixels)).chunk(2, dim=1)
    found = make_backbone().encode(pixels, value_range=low_high)
    torch.testing.assert_close(found, mean * 0.18215, rtol=1e-4, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch(make_backbone, pixels):
    backbone = make_backbone()
    whole = backbone.encode(pixels)
    decoded = backbone.decode(whole)
    for row in range(3):
        torch.testing.assert_close(backbone.encode(pixels[[row]])[0], whole[row], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(backbone.decode(whole[[row]])[0], decoded[row], rtol=1e-4, atol=1e-5)


def test_odd_sizes_are_cropped_at_the_centre_as_recorded(make_backbone, pixels):
    backbone = make_backbone()
    odd = torch.nn.functional.pad(pixels, (3, 4, 2, 3), value=0.9)
    assert odd.shape[2:] == (69, 103)
    assert torch.equal(backbone.encode(odd), backbone.encode(pixels))
    assert "cropped at the centre" in backbone.size_policy


def test_decode_is_the_networks_own(make_backbone, tiny_vae):
    backbone = make_backbone()
    latents = 0.18215 * torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    images = backbone.decode(latents)
    assert images.shape == (2, 3, 64, 96)
    assert 0.0 <= float(images.min()) <= float(images.max()) <= 1.0
    with torch.no_grad():
        expected = (tiny_vae(0).first_stage_model.decode(latents / 0.18215) + 1) / 2
    torch.testing.assert_close(images, expected.clamp(0, 1), rtol=1e-4, atol=1e-5)


def test_out_of_memory_falls_back_to_tiles(make_backbone, tiny_vae, pixels, monkeypatch, caplog):
    vae = tiny_vae(0)
    encode, calls = vae.first_stage_model.encode, []

    def fails_once(x):
        calls.append(x.shape)
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError("test")
        return encode(x)

    backbone = make_backbone()
    whole = backbone.encode(pixels)
    monkeypatch.setattr(vae.first_stage_model, "encode", fails_once)
    found = backbone.encode(pixels)
    assert len(calls) > 1
    assert "tiled" in caplog.text
    assert found.shape == whole.shape
    assert torch.isfinite(found).all()
    calls.clear()
    assert torch.equal(backbone.encode(pixels, sample=3), found)  # tiles have no posterior in common
    assert "mode is used" in caplog.text
    assert not found.is_inference()


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 64, 64, 3), (1, 3, 7, 64)])
def test_wrong_shapes(make_backbone, shape):
    from latent_critic.core.errors import BadInput

    with pytest.raises(BadInput, match="at least 8 a side"):
        make_backbone().encode(torch.zeros(shape))


def test_an_interrupt_is_not_swallowed(make_backbone, pixels):
    from comfy import model_management

    backbone = make_backbone()
    for work in (lambda: backbone.encode(pixels), lambda: backbone.decode(torch.zeros(1, 4, 8, 8))):
        model_management.interrupt_current_processing(True)
        with pytest.raises(model_management.InterruptProcessingException):
            work()
    model_management.interrupt_current_processing(False)
