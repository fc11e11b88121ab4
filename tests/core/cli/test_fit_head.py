"""``latent-critic fit-head``: what is refused at once, and one fit on the embedded model."""

import json

import pytest
from latent_critic.core.heads.head_file import load_head
from PIL import Image


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for place in range(12):
        Image.effect_noise((64, 64), 8 * place + 4).convert("RGB").save(folder / f"{place}.png")
    rows = "".join(f"pictures/{place}.png,{95 - 8 * place}\n" for place in range(12))
    (tmp_path / "mine.csv").write_text(rows)
    return folder


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--out", "head.pt", "{pics}"], "safetensors"),
        (["--out", "mine.csv/head.safetensors", "{pics}"], "folder"),
        (["--out", "head.safetensors"], "one of pictures"),
        (["--out", "head.safetensors", "{pics}", "--ratings", "mine.csv"], "one of pictures"),
        (["--out", "head.safetensors", "--ratings", "none.csv"], "none.csv"),
        (["--out", "head.safetensors", "--data", "biq2021"], "--root"),
        (["--out", "head.safetensors", "{pics}", "--limit", "0"], "at least 1"),
        (["--out", "head.safetensors", "{pics}", "--comfyui", "{pics}"], "ComfyUI folder"),
        (["--out", "head.safetensors", "{pics}", "--checkpoint", "x.safetensors"], "--comfyui"),
        (["--out", "head.safetensors", "{pics}", "--timesteps", "20", "60"], "falling"),
        (["--out", "head.safetensors", "{pics}", "--reducers", "median"], "reducer"),
    ],
)
def test_what_cannot_work_is_refused_at_once(cli, pictures, tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("fit-head", *(text.format(pics=pictures) for text in given))
    assert code == 2
    assert words in err


@pytest.mark.slow
def test_a_fit_on_the_embedded_model_resumes_and_reports(diffusers, cli, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = [
        "--single-level",
        "--timesteps",
        "60",
        "--side",
        "64",
        "--views",
        "whole",
        "--taps",
        "up.5",
        "--folds",
        "2",
    ]
    given = ["fit-head", "--ratings", "mine.csv", "--out", "head.safetensors", *quick, "--json", "report.json"]
    code, _, err = cli(*given)
    assert code == 0, err
    assert "cost: 12 pictures, 12 views: 12 VAE encodes, 12 denoiser forwards (1 levels)" in err
    told = json.loads((tmp_path / "report.json").read_text())
    head = load_head(tmp_path / "head.safetensors")
    assert told["head"]["srcc"] == head.meta.validation["srcc"]
    assert head.meta.family == "critic_ldm"
    assert head.meta.calibrated_on == "your ratings"
    kept = sorted((tmp_path / "head.features").rglob("*.safetensors"))
    stamps = [file.stat().st_mtime_ns for file in kept]
    assert len(kept) == 12
    assert cli(*given)[0] == 0
    assert [file.stat().st_mtime_ns for file in kept] == stamps


@pytest.mark.slow
def test_a_fitted_head_scores_and_ranks_files(diffusers, cli, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = [
        "--single-level",
        "--timesteps",
        "60",
        "--side",
        "64",
        "--views",
        "whole",
        "--taps",
        "up.5",
        "--folds",
        "2",
    ]
    assert cli("fit-head", "--ratings", "mine.csv", "--out", "head.safetensors", *quick)[0] == 0
    asked = [pictures, "--scorer", "lgdm", "--head", "head.safetensors", "--json"]
    code, out, err = cli("score", *asked)
    assert code == 0, err
    rows = json.loads(out)
    assert [row["scorer"] for row in rows] == ["lgdm"] * 12
    assert all(0.0 <= row["score"] <= 100.0 for row in rows)
    by_name = {row["path"].rsplit("/", 1)[-1]: row["score"] for row in rows}
    assert by_name["0.png"] > by_name["11.png"]  # they were rated so
    ranked = json.loads(cli("rank", *asked)[1])
    assert [row["score"] for row in ranked] == sorted(by_name.values(), reverse=True)
    code, _, err = cli("score", pictures, "--scorer", "lgdm", "--head", pictures / "0.png")
    assert code == 2
    assert "0.png" in err
