"""Note a fine-tuned judge that does not ship: what was tried, and what it gained on the validation part.

    .venv/bin/python .ci/judge_tried.py FILE.safetensors [--run DIR]     add to core/assets/judge/tried.json

FILE is what `latent-critic train judge-finetune --out` wrote; its metadata tells both. With the run's folder its
validations are noted as well, and drawn into tried.png. A file that was noted before is not noted twice. Then run
.ci/cards.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import readme
from latent_critic.core.errors import BadInput
from latent_critic.core.files import write_text
from latent_critic.core.nets.judge_file import read
from latent_critic.core.train.judge_curve import curve_rows, draw_curve
from latent_critic.core.train.judge_tune import LOG

TRIED = readme.ROOT / "core" / "assets" / "judge" / "tried.json"


def row_of(path: Path) -> dict[str, Any]:
    """What the file says of its fine-tuning.

    Raises:
        BadInput: its trunk is frozen.
    """
    facts = read(path)[1]
    if "tuned" not in facts.settings:
        raise BadInput("a file of train judge-finetune", f"a frozen trunk in {path}", "Name another file.")
    return {"validation": facts.validation, "tuned": facts.settings["tuned"]}


def noted(rows: list[dict[str, Any]], path: Path, run: Path | None) -> list[dict[str, Any]]:
    """The rows and that of the file, once; the validations of its run with it."""
    row = row_of(path)
    others = [other for other in rows if {name: other[name] for name in row} != row]
    return [*others, row if run is None else row | {"log": curve_rows(run / LOG)}]


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--run", type=Path, help="the run's folder")
    parser.add_argument("--out", type=Path, default=TRIED)
    arguments = parser.parse_args()
    before = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else []
    write_text(arguments.out, json.dumps(noted(before, arguments.file, arguments.run), indent=1) + "\n")
    if arguments.run is not None:
        draw_curve(arguments.run / LOG, arguments.out.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
