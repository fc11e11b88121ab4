"""The embedded model's card: its section on the research run follows the files that were measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOT_YET = "Not measured yet."
RECORD = {
    "autoencoder": {"steps": 5000, "sides": [64]},
    "denoiser": {"steps": 7001, "sides": [64, 128]},
    "seed": 0,
    "pictures": {"train": 9000, "held_back": 1000},
    "sizes": {"unet_channels": [96, 192, 192], "unet_heads": 6, "text_width": 192, "text_layers": 3},
    "parameters": {"unet": 20_123_456, "vae": 1_222_000, "text_encoder": 2_000_001},
}
FIGURES = {
    "size": 256,
    "held_back": 40,
    "psnr": 27.5,
    "auc": {"gaussian_blur": 0.99, "jpeg": 0.874},
    "nearest": [0.5, 0.9],
    "nearest_held_back": [0.4, 0.8],
}


@pytest.fixture
def folder(shipped):
    return shipped("critic_ldm")


@pytest.fixture
def section(tmp_path):
    """`section(training=…, figures=…)` → the section of a folder with these files, and the errors."""

    def made(**files):
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        code = "import sys, pathlib, ldm_card\nsys.stdout.write(ldm_card.section(pathlib.Path(sys.argv[1])))"
        command = [sys.executable, "-c", code, str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT / ".ci", capture_output=True, encoding="utf-8", check=False)
        return done.stdout, done.stderr

    return made


def test_the_card_is_what_its_command_writes(folder):
    folder.check_card()


def test_the_section_follows_the_files(section, shipped):
    told, _ = section(training=RECORD, figures=FIGURES)
    assert "| pictures: trained on, held back | 9,000, 1,000 |" in told
    assert "`--unet-channels 96 192 192` `--unet-heads 6` `--text-width 192` `--text-layers 3` |" in told
    assert "`--unet-channels 64 128 128` `--unet-heads 4` `--text-width 128` `--text-layers 2` |" in told
    assert "| stored values: U-Net | 20,123,456 |" in told
    assert "| denoiser steps | 7,001, on crops of 64 and 128 px |" in told
    assert "| PSNR at 256 px, 40 held-back pictures | 27.50 dB | – |" in told
    assert "crop than every held-back picture is | 1 of 2 | – |" in told
    assert "misses AUC .90 at: jpeg. Its autoencoder reaches 27 dB." in told
    assert "LGDM" not in told

    head = {"srcc": 0.6, "srcc_low": 0.58, "srcc_high": 0.62, "n": 10, "how": "5-fold"}
    beside = {**FIGURES, "psnr": 26.25}
    told, _ = section(shipped=beside, lgdm={"head": head})
    assert "27.50 dB | 26.25 dB |" in told
    assert "n = 10, 5-fold | 0.600 (0.580 – 0.620) | – |" in told
    facts = next(line for line in shipped("lgdm").read("README.md").splitlines() if "cross-validated" in line)
    head |= {"n": 5000, "how": facts.split("; ")[1].removesuffix(" |")}
    told, _ = section(lgdm={"head": head})
    assert "| 0.600 (0.580 – 0.620) | 0." in told  # the shipped head's own, on as many
    assert section(shipped={**beside, "held_back": 20})[1].rstrip().endswith("figures.json is not")


def test_without_files_nothing_is_claimed(section):
    assert section() == (NOT_YET, "")
    assert section(training=RECORD) == (NOT_YET, "")


def test_only_figures_are_published(folder):
    """Beside the card lie figures, never weights."""
    research = folder.folder / "research"
    held = {path.name for path in research.iterdir()} if research.exists() else set()
    assert held <= {"training.json", "figures.json", "shipped.json", "lgdm.json"}
    told = folder.read("README.md").partition("<!-- research:begin -->")[2]
    assert told.strip().startswith(NOT_YET) == (not {"training.json", "figures.json"} <= held)
    if "lgdm.json" in held:
        assert not Path(folder.json("research/lgdm.json").get("file", "")).is_absolute()
