"""The measured parts of the shipped GenzIQA head's card; .ci/cards.py writes them.

Facts come from the metadata of critic_ldm.safetensors, the levels and zero-shot from check.json, which is what
`latent-critic train genziqa-check --out` wrote, rows on test sets from benchmark.json, which is what `latent-critic
benchmark --json` printed, ladders from ladders.json, which is what .ci/genziqa_ladders.py wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import readme
from safetensors import safe_open

FOLDER = readme.ROOT / "core" / "assets" / "genziqa"
LADDERS = FOLDER / "ladders.json"
_NOT_YET = "Not measured yet."


def facts_table(weights: Path) -> str:
    """What the file says of itself."""
    with safe_open(weights, framework="np") as handle:
        found = json.loads(handle.metadata()["latent_critic_prompts"])
        count = sum(handle.get_slice(name).get_shape()[0] for name in handle.keys() if name.startswith("context."))  # noqa: SIM118
        rank = max(handle.get_slice(name).get_shape()[0] for name in handle.keys() if name.endswith(".down"))  # noqa: SIM118
    settings, (good, bad) = found["settings"], found["texts"]
    training = settings["training"]
    rows = {
        "training pictures": f"{found['pictures']:,} of {found['training_set']}'s training part",
        "file": f"{weights.stat().st_size / 1e3:.0f} kB, fp16",
        "learned": f"{count} context vectors before “{good}” and “{bad}”, LoRA of rank {rank}",
        "steps": f"{training['steps']:,} of {training['batch']} pictures at rate {training['rate']:g}; kept: the best "
        f"validation's, step {found['validation']['step']}",
        "noise levels": ", ".join(map(str, settings["timesteps"])),
        "noise-error bias": "left out" if settings["bias_weight"] == 0 else f"weight {settings['bias_weight']:g}",
        "scale": "none: scores only rank" if found["calibrated_on"] is None else f"0 to 100, {found['calibrated_on']}",
        "size policy": found["size_policy"],
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _interval(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.3f} ({row[name + '_low']:.3f} – {row[name + '_high']:.3f})"


def check_table(found: dict[str, Any]) -> str:
    """On held-back pictures: few levels against the eight published ones, and the head beside zero-shot."""
    lines = [
        "| noise levels | timesteps | SRCC with people (95 %) | SRCC with the eight levels' ranking (95 %) |",
        "|---|---|---|---|",
    ]
    for row in found["levels"]:
        steps = ", ".join(map(str, row["timesteps"]))
        lines.append(f"| {row['levels']} | {steps} | {_interval(row, 'srcc')} | {_interval(row, 'with_published')} |")
    apart = found["difference"]
    return "\n".join(
        [
            *lines,
            "",
            "| scorer on the same pictures | SRCC with people (95 %) | PLCC |",
            "|---|---|--:|",
            *(
                f"| `{name}` | {_interval(found[name], 'srcc')} | {found[name]['plcc']:.3f} |"
                for name in ("genziqa", "zero_shot")
            ),
            "",
            f"Difference of SRCC, paired: {apart['difference']:+.3f} ({apart['low']:+.3f} – {apart['high']:+.3f}), "
            f"n = {found['n']:,}.",
        ]
    )


def ladders_table(found: dict[str, Any]) -> str:
    """In how many visible steps of each kind of damage the score fell, worst first; which kinds it rewards."""
    kinds = {kind.replace("_", " "): (count["fell"], count["visible"]) for kind, count in found["kinds"].items()}
    kinds = dict(sorted(kinds.items(), key=lambda item: item[1][0] / max(1, item[1][1])))
    fell, visible = (sum(counts) for counts in zip(*kinds.values(), strict=True))
    blind = [kind for kind, (low, seen) in kinds.items() if seen and 3 * low < 2 * seen]
    rows = [f"| {kind} | {low} of {seen} steps |" for kind, (low, seen) in kinds.items() if seen]
    return "\n".join(
        [
            "| damage | the score fell in |",
            "|---|---|",
            *rows,
            f"| **all kinds** | **{fell} of {visible} steps** |",
            "",
            f"It did not fall in more than a third of the steps of: {', '.join(blind) or 'no kind'}.",
        ]
    )


def tests_table(rows: list[dict[str, Any]]) -> str:
    """Rows on test sets, and how far the scorers lie apart on the same pictures."""
    lines = [readme.accuracy_table([{**row, "backbone": None} for row in rows]), ""]
    for row in rows:
        if row.get("versus"):
            told = f"{row['difference']:+.3f} ({row['difference_low']:+.3f} – {row['difference_high']:+.3f})"
            lines.append(
                f"{row['data']}: `{row['scorer']}` less `{row['versus']}`, paired: {told}, p = {row['p']:.3f}."
            )
    return "\n".join(lines)


def card(before: str) -> str:
    """The card with its measured parts renewed."""
    after = readme.fill(before, "facts", facts_table(FOLDER / "critic_ldm.safetensors"))
    checked, rows, ladders = _read("check.json"), _read("benchmark.json"), _read(LADDERS.name)
    after = readme.fill(after, "ladders", ladders_table(ladders) if ladders else _NOT_YET)
    after = readme.fill(after, "check", check_table(checked) if checked else _NOT_YET)
    return readme.fill(after, "tests", tests_table(rows) if rows else _NOT_YET)


def _read(name: str) -> Any:
    path = FOLDER / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
