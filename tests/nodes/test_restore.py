"""Restore For Comparison in the real executor: a restorer's file, the loaded model, and every bad input."""

import pytest
import torch

pytestmark = pytest.mark.host
WIDGETS = {"steps": 0, "hold": 0.03, "gain": 4.0, "seed": 0}


@pytest.fixture
def file(pack, comfyui_base):
    """A small restorer in models/quality_restorers that changes pictures; its name."""
    nets, weights = pack("core.nets.restorer"), pack("core.restoration.weights")
    shape = nets.RestorerShape(4, (1, 2), 1, (), 32, 0.0, 0, False, 1, "clean")
    net = nets.build(shape)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    folder = comfyui_base / "models/quality_restorers"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.safetensors"
    weights.save_restorer(path, net, weights.RestorerFacts(shape, 4, 0.0))
    yield path.name
    path.unlink()


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch, tmp_path, comfyui):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))


def test_a_batch_comes_back_as_a_batch(run_node, file, pack, comfyui_base):
    images = torch.rand(3, 40, 56, 3, generator=torch.Generator().manual_seed(0))
    run = run_node("LatentCriticRestore", {**WIDGETS, "restorer": file}, images=[images])
    assert run.success, run.error
    for name in ("restored", "less_noisy", "noisier", "differences"):
        (found,) = run.kept[name]
        assert found.shape == images.shape
        assert found.dtype == torch.float32
        assert 0.0 <= float(found.min()) <= float(found.max()) <= 1.0
    restored = run.kept["restored"][0]
    plain = pack("core.restoration.sr3").load_sr3(comfyui_base / "models/quality_restorers" / file)
    wanted = plain.restore(images.movedim(-1, 1)).images[:, 0].movedim(1, -1)
    torch.testing.assert_close(restored, wanted, atol=1 / 255, rtol=0)  # what is kept has 8 bits
    difference = (4.0 * (restored - images).abs().mean(-1)).clamp(0, 1)
    torch.testing.assert_close(run.kept["differences"][0][..., 0], difference, atol=1e-5, rtol=0)
    changes = (restored - images).abs().mean((1, 2, 3)) * 100
    assert run.kept["changes"] == pytest.approx(changes.tolist(), abs=1e-3)
    assert run.kept["report"][0].count("4 denoiser calls") == 3
    again = run_node("LatentCriticRestore", {**WIDGETS, "restorer": file, "gain": 1.0}, images=[images])
    assert torch.equal(again.kept["restored"][0], restored)
    assert again.kept["report"][0].count("kept from before") == 3


def test_sizes_channels_and_extreme_aspects(run_node, file):
    images = [torch.rand(1, 64, 90, 4), torch.rand(1, 8, 400, 3), torch.rand(1, 30, 31, 1)]
    run = run_node("LatentCriticRestore", {**WIDGETS, "restorer": file, "steps": 5}, images=images)
    assert run.success, run.error
    assert [tuple(found.shape) for found in run.kept["restored"]] == [(1, 64, 90, 3), (1, 8, 400, 3), (1, 30, 31, 3)]
    assert "5 denoiser calls" in run.kept["report"][0]


def test_what_cannot_be_restored_is_blocked_and_the_others_are_not(run_node, file):
    images = [torch.rand(1, 32, 32, 3), torch.rand(1, 6, 32, 3), torch.full((1, 32, 32, 3), float("nan"))]
    run = run_node("LatentCriticRestore", {**WIDGETS, "restorer": file}, images=images)
    assert run.success, run.error
    assert len(run.kept["restored"]) == len(run.kept["changes"]) == 1
    assert run.kept["report"][0].count("not restored") == 2
    assert "NaN" in run.blocked["restored"]


def test_a_diverging_restorer_is_a_reason(run_node, file, pack, comfyui_base):
    weights = pack("core.restoration.weights")
    path = comfyui_base / "models/quality_restorers" / file
    net, facts = weights.load_restorer(path)
    with torch.no_grad():
        net.last[-1].bias.fill_(60.0)
    weights.save_restorer(path, net, facts)
    run = run_node("LatentCriticRestore", {**WIDGETS, "restorer": file}, images=[torch.rand(1, 32, 32, 3)])
    assert run.success, run.error
    assert "diverged" in run.blocked["restored"]


def _graph(family="sd15", parts=("model", "clip", "vae"), **changes):
    model = {name: ["1", place] for place, name in enumerate(("model", "clip", "vae")) if name in parts}
    return {
        "1": {"class_type": "TestTinyCheckpoint", "inputs": {"family": family, "seed": 1}},
        "2": {"class_type": "EmptyImage", "inputs": {"width": 72, "height": 64, "batch_size": 2, "color": 0x804020}},
        "3": {
            "class_type": "LatentCriticRestore",
            "inputs": {"images": ["2", 0], "restorer": "", **WIDGETS, **model, **changes},
        },
        "4": {"class_type": "TestKeep", "inputs": {"name": "restored", "value": ["3", 0]}},
        "5": {"class_type": "TestKeep", "inputs": {"name": "report", "value": ["3", 5]}},
    }


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_with_the_loaded_model(run_workflow, file, family):
    run = run_workflow(_graph(family, restorer=file))
    assert run.success, run.error
    assert run.kept["restored"][0].shape == (2, 64, 72, 3)
    assert "the loaded model" in run.kept["report"][0]
    assert "noise in the two states on the way: 0.20, 0.35" in run.kept["report"][0]


def test_a_missing_part_is_one_clear_error(run_workflow, file):
    for parts, missing in ((("model", "clip"), "VAE"), (("clip", "vae"), "MODEL")):
        run = run_workflow(_graph(parts=parts, restorer=file))
        assert not run.success
        assert f"a {missing}" in run.error


def test_settings_out_of_range_are_one_clear_error(run_node, file):
    run = run_node("LatentCriticRestore", {**WIDGETS, "restorer": file, "steps": 2}, images=[torch.rand(1, 32, 32, 3)])
    assert not run.success
    assert "4 to 50 steps" in run.error


def test_cancel_stops_it_within_one_call(run_node, file, comfyui, monkeypatch):
    from comfy import model_management

    calls = []

    def cancel():
        calls.append(1)
        if len(calls) > 3:
            raise model_management.InterruptProcessingException

    monkeypatch.setattr(model_management, "throw_exception_if_processing_interrupted", cancel)
    run = run_node("LatentCriticRestore", {**WIDGETS, "restorer": file, "steps": 50}, images=[torch.rand(1, 32, 32, 3)])
    assert not run.success
    assert len(calls) <= 6
