"""On a device without room to spare a scorer leaves the loaded MODEL where it is. The device is a CPU under a name of
its own, with the free memory of a small card; loading, freeing and unloading are ComfyUI's own."""

import copy

import pytest
import torch

pytestmark = pytest.mark.host

CARD, MB = torch.device("cpu", 0), 2**20


@pytest.fixture
def card(comfyui, monkeypatch):
    """`card(megabytes)` makes the device hold so much; its `used()` are the bytes of weights on it."""
    from comfy import model_management as management

    management.unload_all_models()

    def used():
        return sum(loaded.model_loaded_memory() for loaded in management.current_loaded_models)

    def make(megabytes):
        def free(device=None, torch_free_too=False):
            left = megabytes * MB - used()
            return (left, left) if torch_free_too else left

        monkeypatch.setattr(management, "get_free_memory", free)
        monkeypatch.setattr(management, "get_torch_device", lambda: CARD)
        monkeypatch.setattr(management, "is_device_cpu", lambda device: False)
        monkeypatch.setattr(management, "vram_state", management.VRAMState.NORMAL_VRAM)
        monkeypatch.setattr(management, "minimum_inference_memory", lambda: 1.0 * MB)
        monkeypatch.setattr(management, "extra_reserved_memory", lambda: 0.0)
        return used

    yield make
    monkeypatch.undo()
    management.unload_all_models()


@pytest.fixture
def judge(pack):
    return pack("nodes._judge").builtin_judge


def pictures():
    return [torch.rand(3, 300, 280, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def test_the_judge_leaves_the_model_loaded_and_scores_on_the_cpu(card, judge, tiny, caplog):
    from comfy import model_management

    expected = judge().score(pictures()).values()
    model = tiny.model("sd15")
    size = model.model_size()
    used = card(size / MB + 2.0)
    model.load_device = CARD
    model_management.load_models_gpu([model])
    assert model.loaded_size() == size == used()
    scorer = judge()
    assert scorer.score(pictures()).values() == pytest.approx(expected, abs=1e-3)
    assert model.loaded_size() == size
    assert any(loaded.model is model for loaded in model_management.current_loaded_models)
    assert caplog.text.count("runs on the CPU: no room beside the loaded models") == 1
    scorer.heat_map(pictures()[0])
    assert model.loaded_size() == size
    assert used() == size


def test_with_room_it_is_loaded_beside_the_model(card, judge, tiny, caplog):
    from comfy import model_management

    model = tiny.model("sd15")
    size = model.model_size()
    used = card(size / MB + 2000.0)
    model.load_device = CARD
    model_management.load_models_gpu([model])
    scorer = judge()
    scorer.score(pictures())
    assert model.loaded_size() == size
    assert used() > size
    assert "runs on the CPU" not in caplog.text


def test_a_network_that_is_there_already_pushes_nothing_away(card, tiny):
    """ComfyUI would make room for its least free memory at every call."""
    from comfy import model_management
    from latent_critic.core.hosts.comfyui.own_nets import layer_ops, place

    used = card(2000.0)
    placed = place(layer_ops().Conv2d(3, 8, 3))
    x = torch.rand(1, 3, 16, 16)
    torch.nn.init.normal_(placed.network.weight)
    torch.nn.init.zeros_(placed.network.bias)
    expected = placed(x)
    model = tiny.model("sd15")
    model.load_device = CARD
    model_management.load_models_gpu([model])
    card(used() / MB + 0.5)
    assert torch.equal(placed(x), expected)
    assert model.loaded_size() == model.model_size()
    assert placed.patcher.loaded_size() == placed.patcher.model_size()


def test_gradients_through_a_network_without_room(card, make_backbone, tiny):
    """psi on the CPU, the decoder on the device: the same gradient, and the denoiser stays."""
    from comfy import model_management
    from latent_critic.core.hosts.comfyui.own_nets import place

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh())

    def slope(backbone):
        placed = place(copy.deepcopy(network))
        z = 0.2 * backbone.noise((1, 4, 8, 8), 1).to("cpu")
        with backbone.gradients(decoder=False, networks=[placed]):
            z.requires_grad_(True)
            loss = placed(z[:, :3]).square().sum()
            return torch.autograd.grad(loss, z)[0], placed

    expected, _ = slope(make_backbone())
    model_management.unload_all_models()
    model = tiny.model("sd15")
    used = card(2000.0)
    model.load_device = CARD
    model_management.load_models_gpu([model])
    before = used()
    card(before / MB + 0.5)
    found, placed = slope(make_backbone(model=model))
    torch.testing.assert_close(found, expected)
    assert used() == before == model.model_size()
    assert placed.patcher.loaded_size() == 0


def test_a_scorer_on_the_loaded_model_ends_with_it_loaded(card, make_backbone, tiny):
    """VAE and CLIP are the user's and ComfyUI's to place; the denoiser is not left behind, and the scores are right."""
    from comfy import model_management
    from latent_critic.core.methods.zero_shot import ZeroShot, ZeroShotOptions

    options = ZeroShotOptions(side=64, timesteps=(90,))
    expected = ZeroShot(make_backbone(), options=options).score(pictures()).values()
    model_management.unload_all_models()
    model = tiny.model("sd15")
    card(model.model_size() / MB + 4.0)
    model.load_device = CARD
    model_management.load_models_gpu([model])
    found = ZeroShot(make_backbone(model=model), options=options).score(pictures())
    assert found.values() == pytest.approx(expected, abs=1e-4)
    on_it = [loaded.model for loaded in model_management.current_loaded_models if loaded.model_loaded_memory()]
    assert any(one.is_clone(model) for one in on_it)


def test_displacing_the_model_is_left_to_comfyui_and_done_once(card, make_backbone, tiny, monkeypatch):
    """What is guaranteed where CLIP and VAE have no room beside MODEL: texts are encoded once for a scorer, pictures
    once for a batch, and the denoiser ends loaded."""
    from comfy import model_management
    from latent_critic.core.methods.zero_shot import ZeroShot, ZeroShotOptions

    model = tiny.model("sd15")
    size = model.model_size()
    backbone = make_backbone(model=model)
    clip, vae = backbone._text._clip.patcher, backbone._vae.patcher
    used = card(size / MB + 2.0)
    for patcher in (model, clip, vae):
        patcher.load_device = CARD
    model_management.load_models_gpu([model])
    asked, own = [], model_management.load_models_gpu

    def watched(models, *args, **kwargs):
        asked.extend("clip" if one is clip else "vae" if one is vae else "model" for one in models)
        return own(models, *args, **kwargs)

    monkeypatch.setattr(model_management, "load_models_gpu", watched)
    scorer = ZeroShot(backbone, options=ZeroShotOptions(side=64, timesteps=(90,)))
    four = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    scorer.score(four)
    first = [name for place, name in enumerate(asked) if place == 0 or asked[place - 1] != name]
    asked.clear()
    scorer.score(four)
    again = [name for place, name in enumerate(asked) if place == 0 or asked[place - 1] != name]
    assert first == ["clip", "vae", "model"]
    assert again == ["vae", "model"]
    on_it = [loaded for loaded in model_management.current_loaded_models if loaded.model.is_clone(model)]
    assert sum(loaded.model_loaded_memory() for loaded in on_it) > 0
    assert used() <= size + 2.0 * MB
