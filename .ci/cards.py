"""Fill the measured parts of the judge's model card: its facts, validation figures and benchmark rows.

    .venv/bin/python .ci/cards.py            write core/assets/judge/README.md
    .venv/bin/python .ci/cards.py --check    change nothing; code 1 when the card is out of date

Facts come from the metadata of judge.safetensors, rows from benchmark.json, which is what
`latent-critic benchmark --json` printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import readme
from safetensors import safe_open

FOLDER = readme.ROOT / "core" / "assets" / "judge"


def facts(weights: Path) -> dict[str, Any]:
    """What the file says of itself."""
    with safe_open(weights, framework="np") as handle:
        return json.loads(handle.metadata()["latent_critic_judge"])


def facts_table(found: dict[str, Any], weights: Path) -> str:
    """The file's facts as a table."""
    validation = found["validation"]
    rows = {
        "training pictures": f"{found['pictures']:,}",
        "file": f"{weights.stat().st_size / 1e6:.1f} MB, fp16",
        "head": f"{found['settings']['members']} members of {found['settings']['width']} hidden units, "
        f"{found['settings']['epochs']} epochs",
        "scores of the training pictures": f"mean {found['centre']:.1f}, standard deviation {found['spread']:.1f}",
        "size policy": found["size_policy"],
        "validation by content": f"SRCC {validation['srcc']:.3f} ({validation['srcc_low']:.3f} – "
        f"{validation['srcc_high']:.3f}), PLCC {validation['plcc']:.3f}, KRCC {validation['krcc']:.3f}, "
        f"RMSE {validation['rmse']:.2f}, n = {validation['n']:,}",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def card(before: str) -> str:
    """The card with its measured parts renewed."""
    weights = FOLDER / "judge.safetensors"
    after = readme.fill(before, "facts", facts_table(facts(weights), weights))
    measured = FOLDER / "benchmark.json"
    rows = json.loads(measured.read_text(encoding="utf-8")) if measured.exists() else []
    return readme.fill(after, "accuracy", readme.accuracy_table(rows))


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    arguments = parser.parse_args()
    path = FOLDER / "README.md"
    before = path.read_text(encoding="utf-8")
    after = card(before)
    if arguments.check:
        return int(after != before)
    path.write_text(after, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
