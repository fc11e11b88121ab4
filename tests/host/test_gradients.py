"""Gradients through models that were loaded in inference mode, as ComfyUI's executor loads them."""

import pytest
import torch

pytestmark = pytest.mark.host


def decoder_gradient(backbone, latents):
    with backbone.gradients():
        z = latents.detach().clone().requires_grad_(True)
        images = backbone.decode(z, differentiable=True)
        (gradient,) = torch.autograd.grad((images - 0.3).square().sum(), z)
    return images.detach().clone(), gradient


def denoiser_gradient(backbone, arguments):
    z_t, sigma, conditioning = arguments
    with backbone.gradients(denoiser=True):
        z = z_t.clone().requires_grad_(True)
        x0 = backbone.denoise(z, sigma.clone(), conditioning)
        (gradient,) = torch.autograd.grad(x0.square().mean(), z)
    return gradient


@pytest.fixture
def in_inference_mode(tiny, comfyui):
    """A backbone whose weights are inference tensors, and the mode that nodes run in."""
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    def make(family):
        with torch.inference_mode():
            backbone = ComfyBackbone(tiny.model(family), tiny.clip(family), tiny.vae())
        assert all(p.is_inference() for p in backbone._patcher.model.parameters())
        return backbone

    return make


def test_the_decoders_gradient_equals_that_of_ordinary_weights(make_backbone, in_inference_mode):
    latents = make_backbone().noise((2, 4, 8, 8), 1) * 0.2
    plain_images, plain = decoder_gradient(make_backbone(), latents)
    with torch.inference_mode():
        images, gradient = decoder_gradient(in_inference_mode("sd15"), latents.clone())
    torch.testing.assert_close(images, plain_images, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, plain, rtol=1e-4, atol=1e-5)
    assert float(plain.abs().max()) > 1e-3


def test_the_decoders_gradient_equals_finite_differences(make_backbone):
    backbone = make_backbone()
    latents = backbone.noise((1, 4, 8, 8), 1) * 0.2
    _, gradient = decoder_gradient(backbone, latents)
    direction = backbone.noise(latents.shape, 2)

    def loss(z):
        with backbone.gradients(), torch.no_grad(), torch.enable_grad():
            return float((backbone.decode(z, differentiable=True).double() - 0.3).square().sum())

    step = 1e-3
    slope = (loss(latents + step * direction) - loss(latents - step * direction)) / (2 * step)
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=2e-2)


@pytest.mark.parametrize("family", ["sd15", "sd20_v", "sdxl"])
def test_the_denoisers_gradient_equals_that_of_ordinary_weights(make_backbone, in_inference_mode, call, family):
    plain = make_backbone(family)
    expected = denoiser_gradient(plain, call(plain))
    with torch.inference_mode():
        backbone = in_inference_mode(family)
        found = denoiser_gradient(backbone, call(backbone))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert float(expected.abs().max()) > 1e-4


def test_nothing_is_copied_and_everything_comes_back(in_inference_mode):
    backbone = in_inference_mode("sd15")
    network = backbone._patcher.model
    objects = {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()}
    places = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    with torch.inference_mode(), backbone.gradients(denoiser=True):
        inside = network.state_dict()
        assert {name: tensor.data_ptr() for name, tensor in inside.items()} == places
        assert not any(tensor.is_inference() for tensor in inside.values())
        assert not torch.is_inference_mode_enabled()
    assert {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()} == objects


def test_everything_comes_back_after_an_error(in_inference_mode):
    from comfy import model_management

    backbone = in_inference_mode("sd15")
    network = backbone._patcher.model
    objects = {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()}
    before = getattr(model_management, "in_training", None)
    with pytest.raises(RuntimeError, match="stop"), backbone.gradients(denoiser=True):
        raise RuntimeError("stop")
    assert {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()} == objects
    assert getattr(model_management, "in_training", None) == before


def test_in_training_is_set_and_restored_where_the_host_has_it(make_backbone, monkeypatch):
    from comfy import model_management

    monkeypatch.setattr(model_management, "in_training", False, raising=False)
    with make_backbone().gradients():
        assert model_management.in_training is True
    assert model_management.in_training is False


def test_weights_get_no_gradient(make_backbone):
    backbone = make_backbone()
    for parameter in backbone._vae.patcher.model.parameters():
        parameter.requires_grad_(True)
    try:
        with backbone.gradients():
            z = torch.zeros(1, 4, 8, 8, requires_grad=True)
            backbone.decode(z, differentiable=True).sum().backward()
        assert z.grad is not None
        assert all(parameter.grad is None for parameter in backbone._vae.patcher.model.parameters())
    finally:
        for parameter in backbone._vae.patcher.model.parameters():
            parameter.requires_grad_(False)


def test_a_differentiable_decode_outside_the_context_is_refused(make_backbone):
    from latent_critic.core.errors import BadInput

    backbone = make_backbone()
    with torch.inference_mode(), pytest.raises(BadInput, match="gradients"):
        backbone.decode(torch.zeros(1, 4, 8, 8), differentiable=True)
    with torch.no_grad(), pytest.raises(BadInput, match="gradients"):
        backbone.decode(torch.zeros(1, 4, 8, 8), differentiable=True)


def test_only_networks_that_may_overwrite_are_watched(make_backbone, tiny):
    """Watching every operation for overwrites costs time: a decoder and networks of ours are spared it."""
    import comfy.taesd.taesd
    from latent_critic.core.hosts.comfyui.gradients import _may_overwrite
    from latent_critic.core.perceptual.judge import JudgePsi

    backbone = make_backbone()
    assert not _may_overwrite(backbone._vae.patcher.model)
    assert not _may_overwrite(JudgePsi.load().networks[0])
    assert _may_overwrite(backbone._patcher.model)
    assert _may_overwrite(comfy.taesd.taesd.TAESD())
    watched = torch._C._len_torch_dispatch_stack
    with backbone.gradients():
        assert watched() == 0
    with backbone.gradients(denoiser=True):
        assert watched() == 1
