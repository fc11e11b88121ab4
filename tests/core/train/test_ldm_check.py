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

    train = ldm.pictures.load_collection(pictures, least=32, memory=0).train
    names = [picture.name for picture in train]
    for views in (ldm.pictures.centre_views(train, 48), ldm.pictures.centre_views(train, 48).flip(-1)):
        found = check._nearest(views, train)
        assert min(found.values) > 0.98
        assert found.names == names
        small = torch.nn.functional.interpolate(views, size=found.crops.shape[2:], mode="bilinear", antialias=True)
        assert float((found.crops - small).abs().max()) < 0.1
    unit = check._unit(found.crops)
    assert torch.equal(unit.norm(dim=1).round(decimals=4), torch.ones(len(train)))
    every = torch.cat([check._crops(picture) for picture in train])
    draw = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    correlations = torch.tensor(
        [[torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for b in every] for a in draw]
    )
    torch.testing.assert_close(torch.tensor(check._nearest(draw, train).values), correlations.max(dim=1).values)
