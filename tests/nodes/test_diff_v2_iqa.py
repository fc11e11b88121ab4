"""DiffV2IQA Scorer on tiny real models, from files to score: pixel restorer, loaded model, maps, Cancel, refusals."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.host
WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
SIDE = 64


@pytest.fixture
def folders(comfyui_base):
    found = [comfyui_base / "models" / name for name in ("quality_heads", "quality_restorers")]
    for folder in found:
        folder.mkdir(parents=True, exist_ok=True)
    yield found
    for folder in (*found, comfyui_base / "user/latent_critic/restorations"):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@pytest.fixture
def write(pack, folders, tiny, as_trained):
    """`write(family)` writes an untrained head over a tiny restorer, or over a tiny loaded model."""
    heads, restorers = folders
    make, files = pack("core.methods.diff_v2_iqa_head"), pack("core.methods.diff_v2_iqa_file")
    nets, sr3, weights = (pack(f"core.{name}") for name in ("nets.restorer", "restoration.sr3", "restoration.weights"))
    settings = pack("core.methods.diff_v2_iqa_settings").DiffSettings(side=SIDE)
    eyes = pack("core.methods.diff_v2_iqa_eyes").load_eyes(settings)

    def restorer_of(family, seed):
        if family is None:
            torch.manual_seed(seed)
            shape = nets.RestorerShape(8, (1, 2), 1, (), groups=4)
            net = nets.RestorerNet(shape).half().float()
            facts = weights.RestorerFacts(shape, steps=4, eta=0.0)
            weights.save_restorer(restorers / f"restorer {seed}.safetensors", net, facts)
            return sr3.Sr3Restorer(net, sr3.usual_options(facts))
        shared, backbone = pack("core.restoration.shared"), pack("core.hosts.comfyui.backbone").ComfyBackbone
        parts = tiny.model(family, seed), tiny.clip(family, seed), tiny.vae(seed, family=family)
        return shared.SharedRestorer(backbone(*parts), shared.SharedOptions(timesteps=(112, 41), kept=(41, 112)))

    def one(family=None, seed=1, name="head", **changes):
        head = make.untrained(settings, restorer=restorer_of(family, seed), eyes=eyes.identity)
        head.nets.begin_at(0.5)
        files.save_diff_v2(heads / f"{name}.safetensors", as_trained(head, **changes))
        return f"{name}.safetensors"

    return one


@pytest.fixture
def graph(judged):
    """`graph(file, restorer, family, seed, nan, **widgets)`: the scorer's workflow; a family loads its tiny model."""

    def make(file, restorer="restorer 1.safetensors", family=None, seed=1, nan=-1, **changes):
        given = {"allow_another_restorer": False, "heat_map": "quality", **changes}
        node = {"class_type": "LatentCriticDiffV2IQA", "inputs": {"file": file, "restorer": restorer, **given}}
        found = judged(node, 80, nan, **({"family": family, "seed": seed} if family else {}))
        return found | {"9": {"class_type": "TestKeep", "inputs": {"name": "batch", "value": ["4", 0]}}}

    return make


def told_of(run, name):
    return [score.attributes.get(name) for score in run.kept["batch"][0]]


def values_of(run):
    return {row["index"]: row["score"] for row in run.outputs["4"]["scores"]}


def test_the_pixel_restorer_needs_no_model(run_workflow, write, graph):
    run = run_workflow(graph(write(), nan=1))
    assert run.success, run.error
    spec = run.outputs["4"]["spec"][0]
    assert (spec["name"], spec["calibrated_on"], spec["backbone"]) == ("diff_v2_iqa", "photographs", None)
    values = values_of(run)
    assert values[1] is None
    assert values[0] != values[2]
    assert told_of(run, "denoiser_calls") == [4, None, 4]
    (report,) = run.kept["report"]
    assert "VCG + 5 · VDA over a pixel-space restorer" in report
    assert "SRCC 0.500 [0.250, 0.750], 40 pictures" in report


def test_restorations_are_kept(run_workflow, write, graph):
    first = run_workflow(graph(write()))
    write(training_set="another")  # the node runs again
    again = run_workflow(graph("head.safetensors"))
    assert values_of(again) == values_of(first)
    assert told_of(first, "denoiser_calls") == [4, 4, 4]
    assert told_of(again, "denoiser_calls") == [0, 0, 0]


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_loaded_model_restores(run_workflow, write, family, graph):
    run = run_workflow(graph(write(family), "no restorer in models/quality_restorers", family))
    assert run.success, run.error
    assert f":{family}:" in run.outputs["4"]["spec"][0]["backbone"]
    assert len(set(values_of(run).values())) == 3
    assert "over the loaded model" in run.kept["report"][0]


def test_another_model_only_on_demand(run_workflow, write, graph):
    name = write("sd15")
    run = run_workflow(graph(name, "no restorer in models/quality_restorers", "sd15", seed=5))
    assert not run.success
    assert "weights" in run.error
    changes = {"allow_another_restorer": True}
    run = run_workflow(graph(name, "no restorer in models/quality_restorers", "sd15", seed=5, **changes))
    assert run.success, run.error
    assert run.outputs["4"]["spec"][0]["calibrated_on"] is None


def test_what_is_missing_is_named(run_workflow, write, graph):
    run = run_workflow(graph(write("sd15"), "no restorer in models/quality_restorers"))
    assert not run.success
    assert "MODEL" in run.error


def test_another_restorer_only_on_demand(run_workflow, write, graph):
    write(seed=2, name="other")
    run = run_workflow(graph(write(), "restorer 2.safetensors"))
    assert not run.success
    assert "weights" in run.error
    run = run_workflow(graph("head.safetensors", "restorer 2.safetensors", allow_another_restorer=True))
    assert run.success, run.error


@pytest.mark.parametrize("heat_map", ["quality", "change"])
def test_heat_maps(run_workflow, write, heat_map, graph):
    prompt = graph(write(), heat_map=heat_map)
    inputs = {"images": ["3", 0], "scorer": ["2", 0], "worst_share": 0.1, "opacity": 0.6, "cells": 4}
    prompt["6"] = {"class_type": "LatentCriticHeatMap", "inputs": inputs}
    prompt["7"] = {"class_type": "TestKeep", "inputs": {"name": "maps", "value": ["6", 1]}}
    prompt["8"] = {"class_type": "TestKeep", "inputs": {"name": "scores", "value": ["6", 7]}}
    run = run_workflow(prompt)
    assert run.success, run.error
    assert run.kept["maps"][0].shape == (1, 64, 80)
    told = run.kept["batch"][0].values() if heat_map == "quality" else told_of(run, "change")
    assert run.kept["scores"] == pytest.approx(told, abs=1e-2)


def test_cancel_leaves_within_a_call(run_workflow, write, pack, monkeypatch, graph):
    from comfy import model_management

    net = pack("core.nets.restorer").RestorerNet
    plain, calls = net.clean, []

    def clean(self, *given):
        calls.append(len(given[0]))
        model_management.interrupt_current_processing(True)
        return plain(self, *given)

    monkeypatch.setattr(net, "clean", clean)
    run = run_workflow(graph(write()))
    model_management.interrupt_current_processing(False)
    assert not run.success
    assert [kind for kind, _ in run.messages if "interrupt" in kind] == ["execution_interrupted"]
    assert len(calls) == 1


def test_choices_are_this_methods_heads(pack, write, folders):
    (folders[0] / "torn.safetensors").write_bytes(b"x")
    mine = write()
    schema = pack("nodes.diff_v2_iqa").DiffV2IQAScorer.define_schema()
    assert mine in schema.inputs[0].options
    assert "torn.safetensors" not in schema.inputs[0].options
    assert "restorer 1.safetensors" in schema.inputs[1].options


def test_the_workflow_shows_what_restoration_changes(run_workflow, write, pack, folders, monkeypatch, comfyui_base):
    """The shipped workflow as it is, but for the folder, and for a tiny head and restorer in place of what ships."""
    name = write()
    heads, restorers = folders
    given = {"SHIPPED": heads / name, "SHIPPED_RESTORER": restorers / "restorer 1.safetensors"}
    for module in ("core.methods.diff_v2_iqa_make", "nodes._diff_v2", "nodes._restorers"):
        for constant, path in given.items():
            if hasattr(pack(module), constant):
                monkeypatch.setattr(pack(module), constant, path)
    pictures = comfyui_base / "input/to restore"
    pictures.mkdir(exist_ok=True)
    for number in range(2):
        Image.effect_noise((64, 48), 20 * number + 5).convert("RGB").save(pictures / f"{number}.png")
    prompt = json.loads((WORKFLOWS / "api/see_what_restoration_changes.json").read_text(encoding="utf-8"))
    prompt["1"]["inputs"]["folder"] = pictures.name
    run = run_workflow(prompt)
    assert run.success, run.error
    assert all(row["score"] is not None for row in run.outputs["3"]["scores"])
    assert len(run.outputs["5"]["images"]) == 2
