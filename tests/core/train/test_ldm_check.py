"""The check of a trained model, on the tiniest one."""

import json

import pytest
import torch
from latent_critic.core.cli.main import main


@pytest.fixture
def model(ldm, request_for, tmp_path):
    ldm.run.train_ldm(request_for(tmp_path / "run", steps=1, export=tmp_path / "model"))
    return tmp_path / "model"


def test_the_command_line_trains_checks_and_writes(model, pictures, tmp_path, diffusers):
    told = ["--pictures", str(pictures), "--size", "32"]
    run = ["--run", str(tmp_path / "more"), "--start", str(model), "--export", str(tmp_path / "later")]
    assert main(["train", "ldm", *told, *run, "--steps", "2", "--batch", "2"]) == 0
    record = json.loads((tmp_path / "later" / "training.json").read_text())
    assert record["autoencoder"]["steps"] == 2
    out = tmp_path / "check"
    card = tmp_path / "card.md"
    card.write_text("# Card\n<!-- figures:begin -->\nold\n<!-- figures:end -->\nrest\n")
    few = ["--card", str(card), "--samples-per-caption", "1", "--steps", "1", "--held-back", "2"]
    assert main(["train", "ldm-check", *told, "--model", str(tmp_path / "later"), "--out", str(out), *few]) == 0
    figures = json.loads((out / "figures.json").read_text())
    assert all(0 <= value <= 1 for value in figures["auc"].values())
    assert len(figures["nearest"]) == 8
    assert f"| {figures['psnr']} dB |" in card.read_text()
    assert "old" not in card.read_text()
    assert card.read_text().endswith("-->\nrest\n")
    assert (out / "samples.jpg").exists()
    assert (out / "neighbours.jpg").exists()


def test_a_training_picture_is_found_among_the_crops(ldm, pictures, diffusers):
    from latent_critic.core.train.ldm import check

    collection = ldm.pictures.load_collection(pictures, least=32)
    crops, names = check._training_crops(collection.train)
    nearest, where = check._nearest(ldm.pictures.centre_views(collection.train, 48), crops)
    assert min(nearest) > 0.98
    assert [names[place] for place in where] == [picture.name for picture in collection.train]
    _, mirrored = check._nearest(ldm.pictures.centre_views(collection.train, 48).flip(-1), crops)
    assert [names[place] for place in mirrored] == [picture.name for picture in collection.train]
    assert torch.equal(check._unit(crops[:2]).norm(dim=1).round(decimals=4), torch.ones(2))
