"""Fit Head, Load Head and LGDM Scorer in the real executor, on tiny models of every family and the embedded model."""

import csv
import os

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.host
QUICK = {"read": "single level", "levels": 1, "guidance": "none", "psi": "judge", "size": 64, "head": "ridge"}
FAMILIES = ["sd15", "sd20", "sdxl"]


@pytest.fixture
def graph(comfyui_base):
    """`graph(family, ratings, count, **widgets)`: checkpoint → Fit Head → LGDM Scorer → Pick Best."""

    def build(family="sd15", ratings="", count=12, **widgets):
        prompt = {
            "1": {"class_type": "TestTinyCheckpoint", "inputs": {"family": family, "seed": 0}},
            "2": {
                "class_type": "TestNoisePictures",
                "inputs": {"count": count, "width": 64, "height": 64, "seed": 3, "nan": -1},
            },
            "3": {
                "class_type": "LatentCriticFitHead",
                "inputs": {
                    "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "images": ["2", 0], "name": f"of {family}",
                    "ratings": ratings, "ratings_file": "", **QUICK, **widgets,
                },
            },
            "4": {
                "class_type": "LatentCriticLGDM",
                "inputs": {
                    "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "head": ["3", 0], "allow_other_model": False,
                },
            },
            "5": {"class_type": "LatentCriticPickBest", "inputs": {"images": ["2", 0], "scorer": ["4", 0], "keep": 1}},
            "6": {"class_type": "TestKeep", "inputs": {"name": "head", "value": ["3", 0]}},
            "7": {"class_type": "TestKeep", "inputs": {"name": "report", "value": ["3", 1]}},
        }  # fmt: skip
        if family == "critic_ldm":
            prompt["1"] = {"class_type": "LatentCriticLoadEmbedded", "inputs": {}}
        return prompt

    yield build
    for file in (comfyui_base / "models/quality_heads").glob("of *.safetensors"):
        file.unlink()


RATINGS = ", ".join(str(8 * place) for place in range(12))


@pytest.mark.parametrize("family", [*FAMILIES, "critic_ldm"])
def test_a_head_is_fitted_saved_and_used(run_workflow, graph, comfyui_base, family):
    run = run_workflow(graph(family, RATINGS))
    assert run.success, run.error
    (report,) = run.kept["report"]
    assert report.startswith("cost: 12 pictures")
    assert "held-out agreement with your ratings: SRCC" in report
    assert (comfyui_base / f"models/quality_heads/of {family}.safetensors").is_file()
    shown = run.outputs["5"]
    assert shown["spec"][0]["calibrated_on"] == "your ratings"
    assert all(0.0 <= row["score"] <= 100.0 for row in shown["scores"])


def test_the_guided_path_with_both_terms_in_the_executor(run_workflow, graph):
    run = run_workflow(graph("sd15", RATINGS, read="guided path", levels=2, guidance="both"))
    assert run.success, run.error
    assert "24 decoder forwards and backwards (2 terms)" in run.kept["report"][0]
    assert len({row["score"] for row in run.outputs["5"]["scores"]}) == 12


def test_without_ratings_it_ranks_and_claims_nothing(run_workflow, graph):
    run = run_workflow(graph(count=4))
    assert run.success, run.error
    (report,), (head,) = run.kept["report"], run.kept["head"]
    assert "no agreement with people is claimed" in report
    assert head.meta.calibrated_on is None
    assert "srcc" not in head.meta.validation
    assert run.outputs["5"]["spec"][0]["calibrated_on"] is None
    prompt = graph(count=4)
    widgets = {"threshold": 50.0, "top_k": 0, "percentile": 0.0, "floor": 0, "cap": 0}
    prompt["5"] = {
        "class_type": "LatentCriticReject",
        "inputs": {"images": ["2", 0], "scorer": ["4", 0], **widgets},
    }
    refused = run_workflow(prompt)
    assert "UncalibratedThreshold" in refused.error


def test_a_saved_head_loads_and_a_probe_or_another_model_is_refused(run_workflow, graph, pack, comfyui_base):
    assert run_workflow(graph("sd15", RATINGS)).success
    prompt = graph("sd15", RATINGS)
    prompt["3"] = {"class_type": "LatentCriticLoadHead", "inputs": {"head": "of sd15.safetensors"}}
    again = run_workflow(prompt)
    assert again.success, again.error
    assert "for sd15: 0 to 100 on your ratings" in again.kept["report"][0]
    prompt["1"]["inputs"]["seed"] = 1
    other = run_workflow(prompt)
    assert "MismatchedBackbone" in other.error
    assert "fingerprint" in other.error
    prompt["4"]["inputs"]["allow_other_model"] = True
    allowed = run_workflow(prompt)
    assert allowed.success, allowed.error
    assert allowed.outputs["5"]["spec"][0]["calibrated_on"] is None
    for node in prompt.values():
        node.pop("is_changed", None)  # ComfyUI notes it in the prompt that it is given
    (comfyui_base / "models/quality_heads/of sd15.safetensors").write_bytes(b"torn")
    torn = run_workflow(prompt)
    assert "UnreadableFile" in torn.error


def test_ratings_from_a_file(run_workflow, graph, comfyui_base, pack):
    folder = comfyui_base / "input/rated"
    folder.mkdir(exist_ok=True)
    with (folder / "mine.csv").open("w", newline="") as file:
        for place in range(12):
            Image.effect_noise((64, 64), 10 * place + 1).convert("RGB").save(folder / f"{place}.png")
            csv.writer(file).writerow([f"{place}.png", 90 - 7 * place])
    prompt = graph("sd15", ratings_file="rated/mine.csv")
    del prompt["3"]["inputs"]["images"]
    run = run_workflow(prompt)
    assert run.success, run.error
    assert "pictures of mine" in run.kept["report"][0]
    (head,) = run.kept["head"]
    assert head.meta.pictures == 12
    stamp = pack("nodes.fit_head").FitHead.fingerprint_inputs
    before = stamp(["of sd15"], ["rated/mine.csv"])
    assert stamp(["of sd15"], ["rated/mine.csv"]) == before
    os.utime(folder / "3.png", (1, 1))
    written = stamp(["of sd15"], ["rated/mine.csv"])
    assert written != before
    (comfyui_base / "models/quality_heads/of sd15.safetensors").unlink()
    assert stamp(["of sd15"], ["rated/mine.csv"]) != written
    assert stamp((None,), [""]) == stamp(None, [""])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ratings": "1, 2"}, "12 ratings"),
        ({"ratings": "high"}, "numbers as ratings"),
        ({"ratings": RATINGS, "name": "../x"}, "plain name"),
        ({"ratings_file": "rated/mine.csv"}, "images or a ratings file"),
        ({"ratings": RATINGS.replace("88", "188")}, "0 to 100"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_any_work(run_workflow, graph, change, words):
    run = run_workflow(graph(**change))
    assert not run.success
    assert words in run.error


def test_another_head_or_file_of_that_name_is_not_overwritten(run_workflow, graph, comfyui_base):
    path = comfyui_base / "models/quality_heads/of sd15.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"someone's work")
    refused = run_workflow(graph("sd15", RATINGS))
    assert "no other head as of sd15.safetensors" in refused.error
    assert path.read_bytes() == b"someone's work"
    path.unlink()
    assert run_workflow(graph("sd15", RATINGS)).success
    assert run_workflow(graph("sd15", RATINGS, head="kernel")).success
    kept = path.read_bytes()
    for change in ({"read": "guided path", "levels": 2}, {"name": "of sd15", "family": "sd20"}):
        refused = run_workflow(graph(**{"family": "sd15", "ratings": RATINGS, **change}))
        assert "Choose another name" in refused.error
    assert path.read_bytes() == kept


def test_masks_one_for_each_latent_of_a_list_of_batches(run_workflow, run_node, graph, comfyui):
    draw = torch.Generator().manual_seed(0)
    samples = torch.randn(3, 4, 8, 8, generator=draw)

    def values(*batches, percent="50,100,30"):
        comfyui.NODE_CLASS_MAPPINGS["TestGive"].values[repr(batches)] = [{"samples": samples[part]} for part in batches]
        prompt = graph(count=12, ratings=RATINGS)
        prompt["8"] = {"class_type": "TestMasks", "inputs": {"percent": percent, "size": 64}}
        prompt["4"]["inputs"]["mask"] = ["8", 0]
        prompt["9"] = {"class_type": "TestGive", "inputs": {"key": repr(batches)}}
        inputs = {"latents": ["9", 0], "keep": 1, "scorer": ["4", 0]}
        prompt["5"] = {"class_type": "LatentCriticScoreLatents", "inputs": inputs}
        run = run_workflow(prompt)
        return run.error or [row["score"] for row in sorted(run.outputs["5"]["scores"], key=lambda row: row["index"])]

    assert values(slice(0, 2), slice(2, 3)) == pytest.approx(values(slice(0, 3)), abs=1e-2)
    assert "1 mask, or 3 for 3 images" in values(slice(0, 2), slice(2, 3), percent="50,50")


def test_choices_follow_the_folder(pack, graph, comfyui_base):
    node = pack("nodes.load_head").LoadHead
    folder = comfyui_base / "models/quality_heads"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "of nobody.safetensors").write_bytes(b"")
    (field,) = node.define_schema().inputs
    assert "of nobody.safetensors" in field.options
    assert field.options[-1] == "for the embedded model (shipped)"
    assert node.fingerprint_inputs("of nobody.safetensors") != node.fingerprint_inputs("none.safetensors")


def test_the_head_that_ships_judges_through_the_embedded_model(run_workflow, graph):
    prompt = graph("critic_ldm", count=3)
    prompt["3"] = {"class_type": "LatentCriticLoadHead", "inputs": {"head": "for the embedded model (shipped)"}}
    run = run_workflow(prompt)
    assert run.success, run.error
    assert len({row["score"] for row in run.outputs["5"]["scores"]}) == 3


def test_masks_in_the_executor(run_workflow, graph):
    """One mask for all, of another size; one for each, of which one is empty and one too small; and a wrong number."""

    def scores(percent, size=64):
        prompt = graph(count=12, ratings=RATINGS)
        prompt["8"] = {"class_type": "TestMasks", "inputs": {"percent": percent, "size": size}}
        prompt["4"]["inputs"]["mask"] = ["8", 0]
        run = run_workflow(prompt)
        return run, {row["index"]: row for row in run.outputs["5"]["scores"]} if run.success else {}

    plain = run_workflow(graph(count=12, ratings=RATINGS)).outputs["5"]["scores"]
    run, whole = scores("100", 32)
    assert run.success, run.error
    assert [whole[row["index"]]["score"] for row in plain] == pytest.approx([row["score"] for row in plain], abs=0.05)
    _, half = scores("50")
    assert all(half[place]["score"] != pytest.approx(whole[place]["score"], abs=1e-3) for place in range(12))
    _, each = scores(",".join(["50"] * 10 + ["0", "2"]))
    assert each[3]["score"] == pytest.approx(half[3]["score"], abs=1e-3)
    assert "empty" in each[10]["reason"]
    assert "too small" in each[11]["reason"]
    refused, _ = scores("50,50")
    assert not refused.success
    assert "1 mask, or 12 for 12 images" in refused.error
