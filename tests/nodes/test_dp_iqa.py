"""DP-IQA Scorer on tiny real models, from loader to score: frozen heads, the authors' files, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.host
WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
SIDE = 64
FEW = ("a photo of a human with lens artifacts", "a photo of a plant with blur artifacts", "a photo of night")


@pytest.fixture(autouse=True)
def few_sentences(pack, monkeypatch):
    monkeypatch.setattr(pack("core.methods.dp_iqa_text"), "sentences", lambda: FEW)


@pytest.fixture
def folder(comfyui_base):
    found = comfyui_base / "models/quality_heads"
    found.mkdir(parents=True, exist_ok=True)
    yield found
    for path in found.glob("*"):
        path.unlink()


@pytest.fixture
def heads(pack, tiny, folder, as_trained):
    """`heads(family, **meta)` writes an untrained head with facts; gives its name."""
    host = pack("core.hosts.comfyui.residuals").ResidualComfyBackbone
    maker, files = pack("core.methods.dp_iqa_head"), pack("core.methods.dp_iqa_file")
    settings = pack("core.methods.dp_iqa_settings").DpSettings(side=SIDE)

    def make(family="sd15", seed=1, **changes):
        backbone = host(tiny.model(family, seed), tiny.clip(family, seed), tiny.vae(seed))
        width = backbone.embed(["a"]).tokens.shape[-1]
        shape = maker.fitting_shape(
            backbone.family, width, width=16, squeeze=4, thin=(8, 4), cells=4, hidden=16, side=SIDE, text_hidden=8,
            image_width=6, image_blocks=1,
        )  # fmt: skip
        head = maker.untrained(backbone, shape, settings)
        with torch.no_grad():
            head.nets.QFD.fc3.bias.fill_(0.5)
        files.save_dp_iqa(folder / f"dp {family}.safetensors", as_trained(head, **changes))
        return f"dp {family}.safetensors"

    return make


@pytest.fixture
def graph(judged):
    """`graph(file, family, seed, nan, parts, **widgets)`: the scorer's workflow, with or without the tiny model."""

    def make(file, family="sd15", seed=1, nan=-1, parts=True, **changes):
        inputs = {"file": file, "allow_another_model": False, **changes}
        loaded = {"family": family, "seed": seed} if parts else {}
        return judged({"class_type": "LatentCriticDPIQA", "inputs": inputs}, nan=nan, **loaded)

    return make


@pytest.mark.parametrize("family", ["sd15", "sd20_v", "sdxl"])
def test_the_loaded_model_judges_by_its_head(run_workflow, heads, family, graph):
    run = run_workflow(graph(heads(family), family, nan=1))
    assert run.success, run.error
    shown = run.outputs["4"]
    assert shown["spec"][0]["name"] == "dp_iqa"
    assert shown["spec"][0]["calibrated_on"] == "photographs"
    values = {row["index"]: row["score"] for row in shown["scores"]}
    assert values[1] is None
    assert values[0] != values[2]
    (report,) = run.kept["report"]
    assert report.startswith("Frozen")
    assert "a set, 9 pictures" in report
    assert "SRCC 0.500 [0.250, 0.750], 40 pictures" in report


def test_the_text_is_kept_over_runs(run_workflow, heads, pack, monkeypatch, graph):
    """A second scorer, for another head, finds the text of the first."""
    calls = []
    encoder = pack("core.hosts.comfyui.text").TextEncoder
    inner = encoder.embed
    monkeypatch.setattr(encoder, "embed", lambda self, prompts: calls.append(len(prompts)) or inner(self, prompts))
    name = heads(seed=2)
    calls.clear()
    assert run_workflow(graph(name, seed=2)).success
    first = sum(calls)
    heads(seed=2, training_set="another")
    calls.clear()
    assert run_workflow(graph(name, seed=2)).success
    assert first in (0, len(FEW))
    assert sum(calls) in (0, 1)  # the head's own maker asks for a width


def test_another_model_only_on_demand(run_workflow, heads, graph):
    run = run_workflow(graph(heads(), seed=5))
    assert not run.success
    assert "fingerprint" in run.error
    run = run_workflow(graph(heads(), seed=5, allow_another_model=True))
    assert run.success, run.error
    assert run.outputs["4"]["spec"][0]["calibrated_on"] is None


def test_sdxl_where_sd15_is_needed(run_workflow, heads, graph):
    run = run_workflow(graph(heads("sd15"), "sdxl"))
    assert not run.success
    assert "family" in run.error


def test_a_head_needs_its_model(run_workflow, heads, graph):
    run = run_workflow(graph(heads(), parts=False))
    assert not run.success
    assert "MODEL" in run.error


def test_ours_needs_no_file_and_no_input(run_workflow, pack, folder, graph):
    """Nothing in the folder and nothing connected: the head that ships, on the embedded model."""
    ours = pack("nodes._dp_iqa").OURS
    choices = pack("nodes.dp_iqa").DpIqaScorer.define_schema().inputs[0]
    assert (choices.options, choices.default) == ([ours], ours)
    run = run_workflow(graph(ours, parts=False, nan=1))
    assert run.success, run.error
    values = {row["index"]: row["score"] for row in run.outputs["4"]["scores"]}
    assert values[1] is None
    assert values[0] != values[2]
    assert ":critic_ldm:" in run.outputs["4"]["spec"][0]["backbone"]
    assert run.outputs["4"]["spec"][0]["calibrated_on"] == "photographs"
    (report,) = run.kept["report"]
    assert report.startswith("Ours: decoder") or report.startswith("Ours: adapters")
    assert "Held-back pictures: SRCC" in report


def test_ours_says_beside_a_score_that_connected_parts_did_not_judge(run_workflow, pack, graph):
    ours = pack("nodes._dp_iqa").OURS
    told = [run_workflow(graph(ours, parts=parts)).outputs["4"]["scores"][0] for parts in (True, False)]
    assert "MODEL, CLIP, VAE did not judge" in told[0]["warnings"][0]
    assert not told[1]["warnings"]
    assert told[0]["score"] == told[1]["score"]


def test_a_file_of_ones_own_comes_first(pack, heads):
    mine = heads()
    choices = pack("nodes.dp_iqa").DpIqaScorer.define_schema().inputs[0]
    assert (choices.options, choices.default) == ([mine, pack("nodes._dp_iqa").OURS], mine)


def test_the_authors_files_are_never_the_default(pack, heads, folder):
    """Nor an unrelated pickle, wherever its name sorts."""
    from safetensors.torch import save_file

    torch.save({"a": torch.zeros(1)}, folder / "a.pt")
    save_file({"base_model.features.0": torch.zeros(1)}, folder / "a student.safetensors")
    schema, ours = pack("nodes.dp_iqa").DpIqaScorer.define_schema, pack("nodes._dp_iqa").OURS
    choices = schema().inputs[0]
    assert (choices.options, choices.default) == ([ours, "a student.safetensors", "a.pt"], ours)
    mine = heads()
    assert schema().inputs[0].options == [mine, ours, "a student.safetensors", "a.pt"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "state dict"),
        ({"a.weight": torch.zeros(2)}, "teacher"),
        ({"QFD.fc1.weight": torch.zeros(2), "unet.a": torch.zeros(1), "vae.a": torch.zeros(1)}, "missing"),
    ],
)
def test_wrong_pickles_are_refused(run_workflow, folder, content, words, graph):
    torch.save(content, folder / "theirs.pth")
    run = run_workflow(graph("theirs.pth"))
    assert not run.success
    assert words in run.error


def test_the_authors_student_runs_without_a_model(run_workflow, folder, pack, monkeypatch, graph):
    """Its layout, small; the full one is counted in tests/host/test_dp_iqa_authors.py."""
    student, sizes = pack("core.nets.dp_iqa_student"), pack("core.nets.efficientnet").Scaling(0.25, 0.3)
    shape = student.StudentShape(sizes, grid=16, hidden=8)
    monkeypatch.setattr(pack("core.methods.dp_iqa_authors").student_of, "__defaults__", (shape,))
    torch.manual_seed(0)
    torch.save(student.StudentNetwork(shape).state_dict(), folder / "student.pth")
    run = run_workflow(graph("student.pth", parts=False))
    assert run.success, run.error
    assert "Academic use only" in run.kept["report"][0]
    assert all(row["score"] is not None for row in run.outputs["4"]["scores"])
    assert "academic use" in run.outputs["4"]["spec"][0]["settings"]["use"]


def test_the_workflow_grades_a_folder(run_workflow, comfyui_base):
    """The shipped workflow as it is, but for the folder."""
    pictures = comfyui_base / "input/to grade"
    pictures.mkdir(exist_ok=True)
    for number in range(4):
        Image.effect_noise((64, 48), 20 * number + 5).convert("RGB").save(pictures / f"{number}.png")
    prompt = json.loads((WORKFLOWS / "api/grade_a_folder_by_dp_iqa.json").read_text(encoding="utf-8"))
    prompt["2"]["inputs"]["folder"] = pictures.name
    run = run_workflow(prompt)
    assert run.success, run.error
    assert all(row["score"] is not None for row in run.outputs["4"]["scores"])
    assert len(run.outputs["5"]["images"]) == 3
