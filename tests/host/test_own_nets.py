"""Our own small networks under ComfyUI's memory management."""

import pytest
import torch

pytestmark = pytest.mark.host


def build(ops):
    network = torch.nn.Sequential(ops.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), ops.Conv2d(8, 4, 1))
    torch.manual_seed(0)
    from_torch = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1))
    network.load_state_dict(from_torch.state_dict())
    return network


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_placed_network_gives_what_the_plain_one_gives(comfyui, images):
    from latent_critic.core.hosts.comfyui.own_nets import layer_ops, place

    placed = place(build(layer_ops()))
    with torch.inference_mode():
        assert torch.equal(placed(images), build(torch.nn)(images))


def test_half_precision_weights_compute_in_the_inputs_dtype(comfyui, images):
    from latent_critic.core.hosts.comfyui.own_nets import layer_ops, place

    found = place(build(layer_ops()).half())(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, build(torch.nn)(images), rtol=1e-2, atol=1e-2)


def test_comfyui_knows_it_and_may_unload_it(comfyui, images):
    from comfy import model_management
    from latent_critic.core.hosts.comfyui.own_nets import layer_ops, place

    placed = place(build(layer_ops()))
    before = placed(images)
    assert any(loaded.model is placed.patcher for loaded in model_management.current_loaded_models)
    model_management.unload_all_models()
    assert not any(loaded.model is placed.patcher for loaded in model_management.current_loaded_models)
    assert torch.equal(placed(images), before)
    assert not any(parameter.requires_grad for parameter in placed.parameters())


def test_an_interrupt_is_not_swallowed(comfyui, images):
    from comfy import model_management
    from latent_critic.core.hosts.comfyui.own_nets import layer_ops, place

    placed = place(build(layer_ops()))
    model_management.interrupt_current_processing(True)
    with pytest.raises(model_management.InterruptProcessingException):
        placed(images)
    model_management.interrupt_current_processing(False)


def test_a_network_may_tell_its_own_activations(comfyui, images, monkeypatch):
    """What ComfyUI is asked for beside the weights; the published DP-IQA decoder asks for a fraction of the guess."""
    from latent_critic.core.hosts.comfyui.own_nets import ACTIVATIONS, layer_ops, place
    from latent_critic.core.nets.dp_iqa_decoder import QualityDecoder

    asked, size = [], images.numel() * images.element_size()
    placed = place(build(layer_ops()))
    inner = placed.load
    monkeypatch.setattr(placed, "load", lambda need: asked.append(need) or inner(need))
    placed(images)
    placed.network.activations = 3.0
    placed(images)
    assert asked == [ACTIVATIONS * size, 3.0 * size]
    assert QualityDecoder.activations < ACTIVATIONS / 4
