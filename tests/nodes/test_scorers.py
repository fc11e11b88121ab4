"""The scorer nodes on tiny real models, from loader to score."""

import pytest
import torch

pytestmark = pytest.mark.host
PAIRS = "good photo | bad photo\n\nsharp | blurry\n"


def graph(family="sd15", nan=-1, pairs=PAIRS, node="LatentCriticPickBest", widgets=None):
    """A checkpoint's zero-shot scorer on four pictures."""
    return {
        "1": {"class_type": "TestTinyCheckpoint", "inputs": {"family": family, "seed": 1}},
        "2": {
            "class_type": "LatentCriticZeroShot",
            "inputs": {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "pairs": pairs, "size": 64},
        },
        "3": {
            "class_type": "TestNoisePictures",
            "inputs": {"count": 4, "width": 64, "height": 64, "seed": 3, "nan": nan},
        },
        "4": {"class_type": node, "inputs": {"images": ["3", 0], "scorer": ["2", 0], **(widgets or {"keep": 1})}},
        "5": {"class_type": "TestKeep", "inputs": {"name": "scorer", "value": ["2", 0]}},
    }


@pytest.mark.parametrize("family", ["sd15", "sd20_v", "sdxl"])
def test_the_loaded_model_ranks_a_batch_and_a_broken_image_gets_a_reason(run_workflow, family):
    run = run_workflow(graph(family, nan=2))
    assert run.success, run.error
    shown = run.outputs["4"]
    assert shown["spec"][0]["name"] == "zero_shot"
    assert shown["spec"][0]["settings"]["pairs"] == [["good photo", "bad photo"], ["sharp", "blurry"]]
    assert shown["spec"][0]["settings"]["side"] == 64
    assert shown["hint"] == []
    assert "uncalibrated" in shown["text"][0]
    values = {row["index"]: row["score"] for row in shown["scores"]}
    assert values[2] is None
    assert len({values[0], values[1], values[3]}) == 3


def test_a_threshold_on_it_is_refused_with_the_remedy(run_workflow):
    widgets = {"threshold": 50.0, "top_k": 0, "percentile": 0.0, "floor": 0, "cap": 0}
    run = run_workflow(graph(node="LatentCriticReject", widgets=widgets))
    assert not run.success
    assert "UncalibratedThreshold" in run.error
    assert "top k or percentile" in run.error


def test_an_unknown_family_is_named_and_the_judge_still_works(run_workflow):
    prompt = graph("unknown")
    run = run_workflow(prompt)
    assert not run.success
    assert "UnsupportedFamily" in run.error
    assert "sdxl" in run.error
    del prompt["4"]["inputs"]["scorer"], prompt["5"]
    run = run_workflow(prompt)
    assert run.success, run.error


@pytest.mark.parametrize(
    ("model", "clip", "vae", "message"),
    [
        (("sd15", 1), ("sdxl", 1), None, "MismatchedBackbone"),
        (("sd15", 1), None, (0, 16), "MismatchedBackbone"),
        (("sd15", 1), "none", None, "CLIP"),
        (("sd15", 1), None, "none", "VAE"),
    ],
)
def test_parts_that_do_not_belong_together(run_node, tiny, model, clip, vae, message):
    linked = {
        "model": [tiny.model(*model)],
        "clip": [None if clip == "none" else tiny.clip(*(clip or ("sd15", 1)))],
        "vae": [None if vae == "none" else tiny.vae(*(vae or (0,)))],
    }
    run = run_node("LatentCriticZeroShot", {"pairs": PAIRS, "size": 64}, **linked)
    assert not run.success
    assert message in run.error


@pytest.mark.parametrize("pairs", ["", "  \n", "only one", "a | b | c", "good |"])
def test_pairs_that_are_none(run_node, tiny, pairs):
    run = run_node(
        "LatentCriticZeroShot", {"pairs": pairs, "size": 64}, model=[tiny.model()], clip=[tiny.clip()], vae=[tiny.vae()]
    )
    assert not run.success
    assert "good | bad" in run.error or "sharp photo | blurry photo" in run.error


def weights(**given):
    return {f"weight_{letter}": given.get(letter, 1.0) for letter in "abcd"}


def test_a_blend_scores_as_its_parts_do(run_node, pictures, scorer):
    images = pictures([0.2, 0.8, None, 0.5])
    parts = {"scorer_a": [scorer()], "scorer_b": [scorer(direction="lower", calibrated_on=None, spread=10.0)]}
    run = run_node("LatentCriticBlendScorers", weights(a=3.0), **parts)
    assert run.success, run.error
    (blend,) = run.kept["scorer"]
    shown = run_node("LatentCriticPickBest", {"keep": 1}, images=[images], scorer=[blend]).ui
    assert [row["index"] for row in shown["scores"]] == [1, 3, 0, 2]
    # In units of each spread: 3/4 of 80, less 1/4 of 80 / 10.
    assert shown["scores"][0]["score"] == pytest.approx(60 - 2, abs=1e-3)
    assert "NaN" in shown["scores"][-1]["reason"]
    assert "uncalibrated" in shown["text"][0]


def test_a_blend_without_weight_is_refused(run_node, scorer):
    widgets = weights(a=0.0, b=0.0)
    run = run_node("LatentCriticBlendScorers", widgets, scorer_a=[scorer()], scorer_b=[scorer()])
    assert "weights" in run.error


def test_the_judge_node_and_the_judge_by_default_agree(run_node, run_workflow):
    (judge,) = run_node("LatentCriticQualityJudge").kept["scorer"]
    images = torch.rand(2, 96, 80, 3, generator=torch.Generator().manual_seed(0))
    given = run_node("LatentCriticPickBest", {"keep": 1}, images=[images], scorer=[judge]).ui["scores"]
    default = run_node("LatentCriticPickBest", {"keep": 1}, images=[images]).ui["scores"]
    assert [row["score"] for row in given] == [row["score"] for row in default]
    assert judge.spec.calibrated


def test_fast_views_are_fewer_and_say_so(run_node):
    full, fast = (
        run_node("LatentCriticQualityJudge", {"views": views}).kept["scorer"][0] for views in ("full", "fast")
    )
    image = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    image[..., :256] = 0.5
    assert full.score(image).values() != fast.score(image).values()
    assert full.spec.digest != fast.spec.digest
    assert "up to 2 native-scale" in fast.spec.size_policy


def test_a_judge_of_ones_own_is_a_choice_and_is_read_again_when_it_changes(pack, run_node, tmp_path):
    import folder_paths

    files, shipped = pack("core.nets.judge_file"), pack("core.methods.judge").SHIPPED
    network, facts = files.read(shipped)
    folder_paths.add_model_folder_path("quality_judges", str(tmp_path))
    node = pack("nodes.quality_judge").QualityJudge
    images = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))

    def score(**widgets):
        run = run_node("LatentCriticQualityJudge", widgets)
        assert run.success, run.error
        (judge,) = run.kept["scorer"]
        return judge.spec.settings["weights"], judge.score(images.movedim(-1, 1)).values()[0]

    network.head.centre -= 0.5
    mine = tmp_path / "mine.safetensors"
    files.save(mine, network, facts)
    (tmp_path / "notes.txt").write_text("no judge")
    choices, views = (field.options for field in node.define_schema().inputs)
    assert choices == ["built in", "mine.safetensors"]
    assert views == ["full", "fast"]
    assert node.fingerprint_inputs("built in", "fast") != node.fingerprint_inputs("built in", "full")
    before = node.fingerprint_inputs("mine.safetensors")
    first = score(weights="mine.safetensors")
    assert first[0] == files.digest(mine)
    assert abs(first[1] - score()[1]) > 0.01
    assert score() == score(weights="built in")
    network.head.centre -= 0.5
    files.save(mine, network, facts)
    assert node.fingerprint_inputs("mine.safetensors") != before
    assert score(weights="mine.safetensors") != first
    mine.unlink()
    assert not run_node("LatentCriticQualityJudge", {"weights": "mine.safetensors"}).success
