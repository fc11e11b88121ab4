"""`benchmark --comfyui`: a scorer on the embedded model, in a process that has ComfyUI's libraries."""

from __future__ import annotations

import json

import numpy as np
import pytest
from latent_critic.core.cli.main import main
from PIL import Image

pytestmark = [pytest.mark.host, pytest.mark.slow]


def test_the_embedded_model_beside_the_judge(comfyui_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "utils.py").write_text("raise RuntimeError('the folder of the user must not shadow ComfyUI')")
    draw = np.random.default_rng(0)
    rows = []
    for place in range(4):
        pixels = (128 + draw.normal(0, 20 * place, (64, 64, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{place}.png")
        rows.append(f"{place}.png,{90 - 20 * place}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    command = ["benchmark", "--data", "csv", "--root", "list.csv", "--scorer", "zero_shot", "--scorer", "judge"]
    command += ["--comfyui", str(comfyui_folder), "--json", "out.json", "--resamples", "20", "--resume"]
    assert main(command) == 0, capfd.readouterr().err
    judge, zero_shot = json.loads((tmp_path / "out.json").read_text())
    assert (judge["scorer"], judge["denoiser_calls"], judge["backbone"]) == ("judge", 0.0, None)
    assert zero_shot["scorer"] == "zero_shot"
    assert ":critic_ldm:" in zero_shot["backbone"]
    # Two pairs of prompts, two prompts each, three noise levels.
    assert zero_shot["denoiser_calls"] == 12.0
    assert zero_shot["versus"] == "judge"
    assert len(list((tmp_path / "runs" / "benchmark").iterdir())) == 2


def test_a_checkpoint_that_is_none(comfyui_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    (tmp_path / "list.csv").write_text("a.png,1")
    command = ["benchmark", "--data", "csv", "--root", "list.csv", "--comfyui", str(comfyui_folder)]
    assert main([*command, "--scorer", "zero_shot", "--checkpoint", "gone.safetensors"]) == 2
    assert "no such file" in capfd.readouterr().err
