"""The shipped workflows around the probe: one teaches a head over several runs, the other scores with it."""

import json
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.host, pytest.mark.slow]
WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows" / "api"


@pytest.fixture
def story(sd15_checkpoint):
    """`story(name, seed)` → the workflow with the checkpoint that is here, small images, few steps, few runs."""
    small = {"ckpt_name": sd15_checkpoint, "width": 64, "height": 64, "steps": 8, "fit_at": 20}

    def make(name, seed):
        prompt = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
        for node in prompt.values():
            for field in node["inputs"].keys() & {*small, "seed"}:
                node["inputs"][field] = small.get(field, seed)
        return prompt

    return make


def test_teach_a_probe_then_score_while_sampling(run_workflow, story, comfyui_base, comfyui, monkeypatch):
    for seed in range(5):
        run = run_workflow(story("teach_a_probe", seed))
        assert run.success, run.error
    assert "fitted now, to judge's scores of 20 images" in run.outputs["9"]["text"][0]
    decoded, plain = [], comfyui.VAEDecode.decode
    monkeypatch.setattr(
        comfyui.VAEDecode,
        "decode",
        lambda self, vae, samples: decoded.append(len(samples["samples"])) or plain(self, vae, samples),
    )
    run = run_workflow(story("score_while_sampling", 77))
    assert run.success, run.error
    assert decoded == [1]
    scores = run.outputs["8"]["scores"]
    assert [row["kept"] for row in scores] == [True, False, False, False]
    assert all(row["score"] is not None for row in scores)
    (saved,) = run.outputs["10"]["images"]
    with Image.open(comfyui_base / "output" / saved["subfolder"] / saved["filename"]) as picture:
        assert picture.size == (64, 64)
