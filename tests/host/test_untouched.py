"""The user's model afterwards: bit-identical, not a byte larger, sampling as before."""

import gc

import pytest
import torch

pytestmark = pytest.mark.host


def use_everything(backbone, call):
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import full

    arguments = call(backbone)
    backbone.denoise(*arguments, Recorder.of(backbone.family.taps, full))
    for tap in backbone.family.taps[::3]:
        backbone.features(*arguments, Recorder.of([tap], full))
    latents = backbone.encode(torch.rand(2, 3, 64, 64), sample=3)
    backbone.decode(latents)
    with backbone.gradients(denoiser=True):
        z = latents.clone().requires_grad_(True)
        images = backbone.decode(backbone.denoise(z, *_rest(backbone)), differentiable=True)
        torch.autograd.grad(images.square().mean(), z)
    return backbone.fingerprint


def _rest(backbone):
    return torch.tensor([0.5, 1.0]), backbone.embed(["a", "b"])


def ksampler(model, backbone):
    import comfy.sample

    texts = backbone.embed(["good", "bad"])
    conditions = [[[texts.tokens[[row]], {"pooled_output": texts.pooled[[row]]}]] for row in (0, 1)]
    noise = backbone.noise((2, 4, 8, 8), 9)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, 4, 5.0, "dpmpp_2m", "karras", *conditions, torch.zeros_like(noise), disable_pbar=True, seed=9
        )


@pytest.mark.parametrize("family", ["sd15", "sd20_v", "sdxl"])
def test_a_ksampler_run_before_and_after_is_identical(tiny_model, make_backbone, call, weights_of, family):
    model = tiny_model(family)
    backbone = make_backbone(family, model)
    options, weights = str(model.model_options), weights_of(model)
    before = ksampler(model, backbone)
    use_everything(backbone, call)
    assert torch.equal(ksampler(model, backbone), before)
    after = weights_of(model)
    assert weights.keys() == after.keys()
    assert all(torch.equal(weights[name], after[name]) for name in weights)
    assert str(model.model_options) == options
    assert not model.wrappers


def test_nothing_stays_on_any_module(tiny_model, make_backbone, call):
    model = tiny_model("sd15")
    backbone = make_backbone(model=model)
    objects = {name: id(tensor) for name, tensor in model.model.named_parameters()}
    use_everything(backbone, call)
    for name, module in model.model.named_modules():
        assert not module._forward_hooks, name
        assert not module._forward_pre_hooks, name
    assert {name: id(tensor) for name, tensor in model.model.named_parameters()} == objects


def test_nothing_stays_after_a_forward_that_fails(tiny_model, make_backbone, call):
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import mean

    model = tiny_model("sd15")
    backbone = make_backbone(model=model)
    arguments = call(backbone)
    before = backbone.denoise(*arguments)
    taps = [tap for tap in backbone.family.taps if tap.kind == "feature"]

    def broken(values, grid):
        raise RuntimeError("a reducer's own error")

    with pytest.raises(RuntimeError, match="own error"):
        backbone.denoise(*arguments, Recorder.of(taps[-1:], broken))
    assert not model.model.diffusion_model.out._forward_pre_hooks
    assert torch.equal(backbone.denoise(*arguments), before)
    again = Recorder.of(taps, mean)
    backbone.features(*arguments, again)
    assert not again.silent()


def storages():
    """Every tensor storage alive: where it begins, and its bytes."""
    gc.collect()
    found = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor):  # isinstance would wake deprecated lazy objects
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return found


def test_no_extra_bytes_for_the_users_model(tiny_model, tiny_clip, tiny_vae, make_backbone, call):
    """What a working backbone adds to the storages alive is small change: no weight among it."""
    model = tiny_model("sd15")
    tiny_clip("sd15"), tiny_vae(0)
    largest = max(p.untyped_storage().nbytes() for p in model.model.parameters())
    before = set(storages())
    backbone = make_backbone(model=model)
    use_everything(backbone, call)
    backbone._text._cache.clear()
    extra = sum(size for place, size in storages().items() if place not in before)
    assert extra < largest / 4
    assert {p.data_ptr() for p in backbone._patcher.model.parameters()} == {
        p.data_ptr() for p in model.model.parameters()
    }
