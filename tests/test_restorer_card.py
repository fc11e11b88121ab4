"""The shipped restorer's card belongs to the file that ships, and the file does what the card says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from latent_critic.core.data.distortions import KINDS
from latent_critic.core.data.held_out import HELD_OUT_KINDS
from latent_critic.core.restoration.sr3 import SHIPPED
from latent_critic.core.restoration.weights import load_restorer

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "core" / "assets" / "restorer"


def test_the_card_is_what_its_command_writes():
    script = ROOT / ".ci" / "cards.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert f"{FOLDER / 'README.md'} is up to date" in done.stdout, done.stdout + done.stderr


def test_the_check_covers_every_kind_and_tells_seen_from_unseen():
    facts = load_restorer(SHIPPED)[1]
    rows = {row["kinds"]: row for row in json.loads((FOLDER / "check.json").read_text(encoding="utf-8"))}
    assert set(rows) == {"seen", "not seen", *KINDS, *HELD_OUT_KINDS}
    assert {kind for kind in KINDS if rows[kind]["seen"]} == set(facts.training["kinds"])
    assert rows["seen"]["psnr_gain"][1] > 0, (
        "nearer to the original on damage that it was trained on, or it should not ship"
    )
    assert not any(row["missing"] for row in rows.values())


def test_the_file_is_small_and_its_command_stands_in_the_card():
    facts = load_restorer(SHIPPED)[1]
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert SHIPPED.stat().st_size < 400_000
    assert f"--steps {facts.training['steps']} --batch {facts.training['batch']}" in card
    assert f"--kinds {' '.join(facts.training['kinds'])}" in card


def test_other_checks_are_of_the_same_damage():
    """Ten calls on the same pictures as four; the loaded model on some of them, where no kind was trained on."""
    few, many, shared = (
        {row["kinds"]: row for row in json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))}
        for name in ("check", "check_10", "check_shared")
    )
    assert set(few) == set(many)
    assert all((few[kind]["n"], few[kind]["seen"]) == (many[kind]["n"], many[kind]["seen"]) for kind in few)
    assert all(abs(few[kind]["psnr"][0] - many[kind]["psnr"][0]) < 1e-6 for kind in few)
    assert set(shared) >= {*KINDS, *HELD_OUT_KINDS}
