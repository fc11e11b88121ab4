"""Fill the measured parts of model cards: the judge's facts, validation, benchmark rows and ladders; shipped heads.

    .venv/bin/python .ci/cards.py            write core/assets/*/README.md
    .venv/bin/python .ci/cards.py --check    change nothing; code 1 when a card is out of date

Facts come from the metadata of judge.safetensors, rows from benchmark.json, which is what
`latent-critic benchmark --json` printed, ladders from ladders.json, which is what .ci/judge_ladders.py wrote, and what
fewer views cost from views.json, which is what `latent-critic train judge-views` wrote. judge_card.py says where the
ladder of changes and the log of fine-tuning come from.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import diff_v2_card
import dp_iqa_card
import genziqa_card
import judge_card
import ldm_card
import lgdm_card
import readme
import restorer_card
from latent_critic.core.nets.view_policy import POLICIES
from safetensors import safe_open

FOLDER = readme.ROOT / "core" / "assets" / "judge"
LADDERS = FOLDER / "ladders.json"
VIEWS = FOLDER / "views.json"


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
        "head": judge_card.head_words(found),
        "scores of the training pictures": f"mean {found['centre']:.1f}, standard deviation {found['spread']:.1f}",
        "size policy": found["size_policy"],
        "validation by content": f"SRCC {validation['srcc']:.3f} ({validation['srcc_low']:.3f} – "
        f"{validation['srcc_high']:.3f}), PLCC {validation['plcc']:.3f}, KRCC {validation['krcc']:.3f}, "
        f"RMSE {validation['rmse']:.2f}, n = {validation['n']:,}",
        **judge_card.damage_row(found["settings"]),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def ladders_table(found: dict[str, Any]) -> str:
    """In how many visible steps of each kind of damage the score fell; what pure noise gets."""
    lines = ["| damage | the score fell in |", "|---|---|"]
    kinds = found["kinds"].items()
    for kind, count in sorted(kinds, key=lambda item: item[1]["fell"] / item[1]["visible"]):
        lines.append(f"| {kind.replace('_', ' ')} | {count['fell']} of {count['visible']} steps |")
    fell, visible = (sum(count[key] for _, count in kinds) for key in ("fell", "visible"))
    missed = [kind.replace("_", " ") for kind, count in kinds if count["fell"] < count["visible"]]
    noise = found["uniform_noise"]
    return "\n".join(
        [
            *lines,
            f"| **all kinds** | **{fell} of {visible} steps** |",
            "",
            f"It missed steps of: {', '.join(missed) or 'no kind'}.",
            f"Pictures of nothing but uniform noise ("
            f"{noise['pictures']} of 512×512 px) get {noise['lowest']:.1f} to {noise['highest']:.1f}.",
        ]
    )


def views_table(found: dict[str, Any]) -> str:
    """What each number of crops costs in agreement."""
    chosen = {most: policy for policy, most in POLICIES.items()}
    lines = [
        "| native-scale crops beside the global view | views at 512×512 | SRCC (95 % interval) | PLCC | loss of SRCC |",
        "|---|--:|---|--:|---|",
    ]
    for row in found["rows"]:
        measures, loss = row["agreement"], row["loss"]
        crops = f"at most {row['most']}" if row["most"] else "none: the global view in their place"
        policy = f" (policy `{chosen[row['most']]}`)" if row["most"] in chosen else ""
        interval = f"{measures['srcc']:.3f} ({measures['srcc_low']:.3f} – {measures['srcc_high']:.3f})"
        cost = f"{-loss['difference']:.4f} ({-loss['high']:.4f} – {-loss['low']:.4f})" if loss else "–"
        lines.append(f"| {crops}{policy} | {row['views']:.1f} | {interval} | {measures['plcc']:.3f} | {cost} |")
    return "\n".join(
        [*lines, "", f"n = {found['n']:,} pictures of the validation part, paired, intervals over contents."]
    )


def card(before: str) -> str:
    """The card with its measured parts renewed."""
    weights = FOLDER / "judge.safetensors"
    after = readme.fill(before, "facts", facts_table(facts(weights), weights))
    measured = FOLDER / "benchmark.json"
    rows = json.loads(measured.read_text(encoding="utf-8")) if measured.exists() else []
    after = readme.fill(after, "accuracy", readme.accuracy_table(rows))
    after = readme.fill(after, "views", views_table(json.loads(VIEWS.read_text(encoding="utf-8"))))
    after = readme.fill(after, "candidates", judge_card.candidates_table(FOLDER / "candidates.json"))
    after = readme.fill(after, "study", judge_card.study_table(FOLDER / "study.json"))
    after = readme.fill(
        after, "tuning", judge_card.tuning_table(facts(weights), FOLDER / "training.jsonl", FOLDER / "tried.json")
    )
    after = readme.fill(after, "held_out", judge_card.held_out(FOLDER / "held_out.json"))
    after = readme.fill(after, "earlier", judge_card.earlier_table(FOLDER / "test_runs.jsonl"))
    after = readme.fill(after, "control", judge_card.control(FOLDER / "control.json"))
    return readme.fill(after, "ladders", ladders_table(json.loads(LADDERS.read_text(encoding="utf-8"))))


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    arguments = parser.parse_args()
    old = 0
    others = (genziqa_card, dp_iqa_card, diff_v2_card, lgdm_card, restorer_card, ldm_card)
    heads = ((found.FOLDER, found.card) for found in others)
    for folder, renewed in ((FOLDER, card), *heads):
        path = folder / "README.md"
        if not path.exists():
            continue
        before = path.read_text(encoding="utf-8")
        after = renewed(before)
        if arguments.check:
            told = "up to date" if after == before else "out of date: run cards.py"
            sys.stdout.write(f"{path} is {told}\n")
            old |= int(after != before)
        else:
            path.write_text(after, encoding="utf-8", newline="\n")
    return old


if __name__ == "__main__":
    sys.exit(main())
