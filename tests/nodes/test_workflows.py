"""Every shipped workflow: both forms say the same, fit the installed nodes, and run."""

import json
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.host
WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
STORIES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
NOTES = {"Note", "MarkdownNote"}


def api_form(name):
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def ui_form(name):
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def prompt_of(graph):
    """UI form → API form, by the saved inputs, widgets and links alone."""
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    prompt = {}
    for node in graph["nodes"]:
        if node["type"] in NOTES:
            continue
        values = iter(node["widgets_values"])
        inputs = {}
        for field in node["inputs"]:
            if "widget" in field:
                inputs[field["name"]] = next(values)
                if field["name"] == "seed":
                    assert next(values) in ("fixed", "randomize", "increment", "decrement")
            if field["link"] is not None:
                inputs[field["name"]] = sources[field["link"]]
        assert list(values) == [], node["type"]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def test_the_stories_are_there():
    assert len(STORIES) >= 3
    assert sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json")) == STORIES


@pytest.mark.parametrize("story", STORIES)
def test_both_forms_say_the_same(story):
    plain = {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in api_form(story).items()}
    assert prompt_of(ui_form(story)) == plain


@pytest.mark.parametrize("story", STORIES)
def test_the_ui_form_fits_the_installed_nodes(story, comfyui, pack):
    pack()
    graph = ui_form(story)
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert len(nodes) == len(graph["nodes"])
    assert max(nodes) == graph["last_node_id"]
    for number, source, out, target, into, kind in graph["links"]:
        assert nodes[source]["outputs"][out]["type"] == kind
        assert number in nodes[source]["outputs"][out]["links"]
        assert nodes[target]["inputs"][into]["link"] == number
        assert kind == "*" or nodes[target]["inputs"][into]["type"] in (kind, "*")
    for node in graph["nodes"]:
        if node["type"] not in NOTES:
            kind = comfyui.NODE_CLASS_MAPPINGS[node["type"]]
            saved = [output["type"] for output in node["outputs"]]
            # ComfyUI's own nodes may gain outputs at the end, as Save Image did.
            assert [str(found) for found in kind.RETURN_TYPES][: len(saved)] == saved
            if hasattr(kind, "GET_SCHEMA"):
                schema = kind.GET_SCHEMA()
                assert {field["name"] for field in node["inputs"]} == {field.id for field in schema.inputs}
                names = [out.display_name or str(out.get_io_type()) for out in schema.outputs]
                assert [output["name"] for output in node["outputs"]] == names


@pytest.mark.parametrize("story", STORIES)
def test_no_two_nodes_overlap(story):
    boxes = [(node["pos"], node["size"]) for node in ui_form(story)["nodes"]]
    for place, ((x, y), (width, height)) in enumerate(boxes):
        for (left, top), (wide, high) in boxes[place + 1 :]:
            assert x + width <= left or left + wide <= x or y + height <= top - 30 or top + high <= y - 30


@pytest.fixture
def fitted(sd15_checkpoint, comfyui_base):
    """A shipped workflow in API form with the checkpoint and the pictures that are here, and small images."""
    folder = comfyui_base / "input/workflow pictures"
    if not folder.exists():
        folder.mkdir()
        for number, size in enumerate(((48, 40), (40, 40), (36, 64))):
            Image.effect_noise(size, 90 - 30 * number).convert("RGB").save(folder / f"{number}.png")
        (folder / "broken.png").write_text("no picture")
    small = {"ckpt_name": sd15_checkpoint, "width": 64, "height": 64, "steps": 1, "folder": folder.name}

    def make(story):
        prompt = api_form(story)
        for node in prompt.values():
            for name in node["inputs"].keys() & small.keys():
                node["inputs"][name] = small[name]
        return prompt

    return make


def by_type(run, prompt, kind):
    return run.outputs[next(key for key, node in prompt.items() if node["class_type"] == kind)]


def test_pick_best_of_a_batch(run_workflow, fitted):
    prompt = fitted("pick_best_of_a_batch")
    run = run_workflow(prompt)
    assert run.success, run.error
    assert len(by_type(run, prompt, "LatentCriticPickBest")["scores"]) == 4
    assert len(by_type(run, prompt, "SaveImage")["images"]) == 1


def test_reject_then_upscale(run_workflow, fitted, comfyui_base):
    prompt = fitted("reject_then_upscale")
    run = run_workflow(prompt)
    assert run.success, run.error
    kept = [row for row in by_type(run, prompt, "LatentCriticReject")["scores"] if row["kept"]]
    saved = by_type(run, prompt, "LatentCriticSaveScored")
    assert 1 <= len(kept) <= 2
    assert len(saved["files"]) == len(kept)
    with Image.open(comfyui_base / "output" / saved["files"][0]) as picture:
        assert picture.size == (96, 96)


def test_when_nothing_is_kept_the_upscale_does_not_run(run_workflow, fitted):
    prompt = fitted("reject_then_upscale")
    reject = next(node for node in prompt.values() if node["class_type"] == "LatentCriticReject")
    reject["inputs"].update(floor=0, threshold=100.0)
    run = run_workflow(prompt)
    assert run.success, run.error
    assert "LatentCriticSaveScored" not in {prompt[key]["class_type"] for key in run.outputs}
    assert not any(row["kept"] for row in by_type(run, prompt, "LatentCriticReject")["scores"])
    blocked = [data["exception_message"] for event, data in run_workflow.server.sent if event == "execution_error"]
    assert len(blocked) == 1
    assert "< threshold 100" in blocked[0]


def test_score_a_folder(run_workflow, fitted):
    prompt = fitted("score_a_folder")
    run = run_workflow(prompt)
    assert run.success, run.error
    scores = by_type(run, prompt, "LatentCriticScoreImages")["scores"]
    assert {row["name"] for row in scores} == {"0.png", "1.png", "2.png"}
    assert len(by_type(run, prompt, "SaveImage")["images"]) == 1
    assert "broken.png" in by_type(run, prompt, "LatentCriticLoadFolder")["text"][0]


def test_reroll_until_good(run_workflow, fitted, comfyui_base):
    prompt = fitted("reroll_until_good")
    gate = next(node for node in prompt.values() if node["class_type"] == "LatentCriticGate")
    gate["inputs"]["threshold"] = 0.0
    run = run_workflow(prompt)
    assert run.success, run.error
    with Image.open(
        comfyui_base / "output/LatentCritic" / by_type(run, prompt, "SaveImage")["images"][0]["filename"]
    ) as f:
        assert f.size == (96, 96)
    gate["inputs"]["threshold"] = 100.0
    run = run_workflow(prompt)
    assert run.success, run.error
    with Image.open(
        comfyui_base / "output/LatentCritic" / by_type(run, prompt, "SaveImage")["images"][0]["filename"]
    ) as f:
        assert f.size == (64, 64)


def test_best_of_16(run_workflow, fitted):
    prompt = fitted("best_of_16")
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 5
    run = run_workflow(prompt)
    assert run.success, run.error
    found = by_type(run, prompt, "LatentCriticBestOfN")
    assert found["best_of"][0]["calls_of_all"] == 16 * 5
    # Of 5 steps both looks fall on the first: 2 extra steps for each, and 2 of 16 go on.
    assert found["best_of"][0]["calls_made"] == 16 + 16 * 2 + 2 * 4
    assert len(found["scores"]) == 2
    assert len(by_type(run, prompt, "SaveImage")["images"]) == 1


def test_overnight_session(run_workflow, fitted):
    counts = []
    for seed in range(4):
        prompt = fitted("overnight_session")
        keep = next(key for key, node in prompt.items() if node["class_type"] == "LatentCriticKeepBest")
        prompt[keep]["inputs"]["top_k"] = 1
        prompt["5"]["inputs"]["seed"] = seed
        run = run_workflow(prompt)
        assert run.success, run.error
        session = run.outputs[keep]["session"][0]
        counts.append((session["seen"], len(session["best"])))
        (row,) = run.outputs[keep]["scores"]
        upscaled = any(prompt[key]["class_type"] == "LatentCriticSaveScored" for key in run.outputs)
        assert upscaled == row["kept"] == (session["best"][0]["score"] == row["score"])
    assert counts == [(1, 1), (2, 1), (3, 1), (4, 1)]


def test_fit_a_head_and_use_it(run_workflow, fitted, comfyui_base):
    folder = comfyui_base / "input/pictures to fit"
    folder.mkdir(exist_ok=True)
    for number in range(4):
        Image.effect_noise((64, 64), 20 * number + 5).convert("RGB").save(folder / f"{number}.png")
    prompt = fitted("fit_a_head_and_use_it")
    prompt["2"]["inputs"]["folder"] = folder.name
    prompt["3"]["inputs"].update(read="single level", levels=1, size=64)
    run = run_workflow(prompt)
    assert run.success, run.error
    assert "no agreement with people is claimed" in by_type(run, prompt, "LatentCriticFitHead")["text"][0]
    scores = by_type(run, prompt, "LatentCriticScoreImages")["scores"]
    assert {row["name"] for row in scores} == {"0.png", "1.png", "2.png"}
    assert all(row["score"] is not None for row in scores)
    assert len(by_type(run, prompt, "SaveImage")["images"]) == 1
    (comfyui_base / "models/quality_heads/my model.safetensors").unlink()


def test_rank_by_quality_and_prompt(run_workflow, fitted):
    """With nothing but what the package brings: the embedded model and its shipped head."""
    prompt = fitted("rank_by_quality_and_prompt")
    assert not {"CheckpointLoaderSimple", "UNETLoader"} & {node["class_type"] for node in prompt.values()}
    next(node for node in prompt.values() if node["class_type"] == "LatentCriticPromptAlignment")["inputs"]["size"] = 64
    run = run_workflow(prompt)
    assert run.success, run.error
    shown = by_type(run, prompt, "LatentCriticPickBest")
    parts = shown["spec"][0]["settings"]["parts"]
    assert [(part["spec"]["name"], part["weight"]) for part in parts] == [
        ("genziqa", pytest.approx(2 / 3)),
        ("prompt_alignment", pytest.approx(1 / 3)),
    ]
    assert all(row["score"] is not None for row in shown["scores"])
    assert len(by_type(run, prompt, "SaveImage")["images"]) == 1


def test_an_unchanged_workflow_runs_nothing_again(run_workflow, fitted):
    prompt = fitted("score_a_folder")
    assert run_workflow(prompt).success
    again = run_workflow(prompt)
    assert again.success
    assert again.cached == set(prompt)
