"""The parts of the judge's card that training measures: the ladder of changes, the log of fine-tuning.

Changes come from study.json, which is what `latent-critic train judge-study --out` wrote; the log is training.jsonl,
log.jsonl of the run folder of `latent-critic train judge-finetune`; facts of a fine-tuned file come from its metadata,
and those of files that did not ship from tried.json, which is what .ci/judge_tried.py wrote. Held-out damage and the
negative control come from held_out.json and control.json, which `latent-critic benchmark --json` wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from card_parts import NOT_YET, held_out_table, interval, read

#: Share of visible steps of damage in which the judge's score should fall.
_BAR = 0.97
#: The kind whose misses gave rise to the family of broken structure.
_RELATIVE = "scan_jitter"
#: What may count beside the order of ladders.
_BESIDE = {"tasks": "kind and extent of damage", "rank": "ranking", "norm": "norm-in-norm"}


def apart(gain: dict[str, Any]) -> str:
    """A paired difference with its 95 % interval."""
    return f"{gain['difference']:+.4f} ({gain['low']:+.4f} – {gain['high']:+.4f})"


def head_words(found: dict[str, Any]) -> str:
    """How the file's head was fitted, in a line."""
    settings = found["settings"]
    squeeze = f" behind a squeeze to {found['rank']}" if found.get("rank") else ""
    if "tuned" not in settings:
        units = f"{settings['members']} members of {settings['width']} hidden units"
        return f"{units}{squeeze}, {settings['epochs']} epochs{_lessons(settings.get('damage'))}"
    tuned = settings["tuned"]
    return (
        f"{found['width']} hidden units{squeeze}; trained with the trunk from {tuned['place']} on, {tuned['steps']:,} "
        f"steps of {tuned['batch']} pictures, weights averaged"
    )


def _lessons(damage: dict[str, Any] | None) -> str:
    if damage is None:
        return ""
    beside = [f"{words} {damage[name]:g}" for name, words in _BESIDE.items() if damage.get(name)]
    own = damage.get("smooth", 1.0)
    ratings = "the ratings" if own == 1.0 else f"the ratings' own of {own:g}"
    return f"; weights beside {ratings}: " + ", ".join([f"ladders of damage {damage['order']:g}", *beside])


def damage_row(settings: dict[str, Any]) -> dict[str, str]:
    """What ladders of damage brought to the file's head; no row where it learned from none."""
    if "damage" not in settings:
        return {}
    gain = settings["damage"]["gain"]
    plain, taught = gain["plain"], gain["taught"]
    others = [words for name, words in _BESIDE.items() if settings["damage"].get(name)]
    words = (
        f"the score falls in {taught['share']:.1%} ({taught['low']:.1%} – {taught['high']:.1%}) of {taught['n']:,} "
        f"steps of contents that were held back, in {plain['share']:.1%} without; SRCC of the validation "
        f"{apart(gain['agreement'])}"
    )
    return {"what " + ", ".join(["ladders of damage", *others]) + " brought": words}


def study_table(path: Path) -> str:
    """Every change with its paired difference, whatever its sign; families left out; the guard against style."""
    found = read(path)
    if found is None:
        return NOT_YET
    lines = ["| change | SRCC (95 % interval) | PLCC | difference of SRCC (95 %, paired) |", "|---|---|--:|---|"]
    for row in found["rows"]:
        gain = row["difference"]
        told = "–" if gain is None else apart(gain)
        lines.append(
            f"| {row['name']} | {interval(row['agreement'], 'srcc')} | {row['agreement']['plcc']:.3f} | {told} |"
        )
    lines += ["", f"n = {found['n']:,} held-back pictures of {found['pictures']:,}; intervals over contents."]
    if found.get("families"):
        lines += ["", *_families(found["families"])]
    if "flat" in found:
        flat = found["flat"]
        lines += [
            "",
            f"Naturalness alone: SRCC {flat['srcc_of_naturalness_alone']:.3f}. Blended in, it moves {flat['pictures']} "
            f"flat illustrations by {flat['shift']:+.2f} points against photographs, at worst by {flat['worst']:+.2f}.",
        ]
    if "larger" in found:
        lines += ["", *_larger(found["larger"])]
    return "\n".join(lines)


def _larger(found: dict[str, Any]) -> list[str]:
    name = found["name"].replace("lite", "EfficientNet-Lite")
    words = {
        "own": f"the judge's trunk, {found['pictures']:,} rated pictures",
        "larger": f"{name} ({found['parameters'] / 1e6:.1f} M parameters), the same pictures",
        "taught": f"the judge's trunk, and {found['unrated']:,} unrated pictures scored by {name}",
    }
    lines = ["| a larger trunk | SRCC (95 % interval) | difference of SRCC (95 %, paired) |", "|---|---|---|"]
    for key, what in words.items():
        if key in found:
            gain = found[key].get("difference")
            told = "–" if gain is None else apart(gain)
            lines.append(f"| {what} | {interval(found[key]['agreement'], 'srcc')} | {told} |")
    return [*lines, "", f"n = {found['n']:,} of the held-back pictures."]


def _families(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| damage of held-back contents | no ladders learned | the other families | all families |",
        "|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{row[n]['share']:.3f} ({row[n]['low']:.3f} – {row[n]['high']:.3f})" for n in ("none", "others", "all")
        ]
        lines.append(f"| {row['family']} | {' | '.join(cells)} |")
    return lines


def held_out(path: Path) -> str:
    """Damage of kinds that no training saw, and how far contents lie apart at one severity."""
    rows = read(path)
    if rows is None:
        return NOT_YET
    own = next(row for row in rows if row["scorer"] == "judge")
    spread = (
        f"Scores of different contents at one severity of one kind spread by {own['content_spread']:.2f} of the spread"
    )
    rest = [kind for name, kind in own["kinds"].items() if name != _RELATIVE]
    falls, steps = (sum(kind[key] for kind in rest) for key in ("falls", "n"))
    without = f"Without {_RELATIVE.replace('_', ' ')} the score fell in {falls / steps:.1%} of {steps} steps."
    return "\n\n".join([held_out_table(rows, "judge", _BAR), without, f"{spread} of all of its scores there."])


def earlier_table(log: Path) -> str:
    """What files that shipped before got on the test sets, out of the log of test runs; nothing of other scorers."""
    runs = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    runs = [run for run in runs if run["scorer"] == "judge"]
    now = runs[-1]["settings"]["weights"]
    head = (
        "| file of | data set | images, or steps of damage | SRCC, or share of steps in which the score fell (95 %) |"
    )
    lines = [head, "|---|---|--:|---|"]
    for run in runs:
        if run["settings"]["weights"] != now:
            told = interval(run, "share" if "share" in run else "srcc")
            when = run["when"][:16].replace("T", " ")
            lines.append(f"| {when} | {run['data']} {run['split']} | {run['n']:,} | {told} |")
    return "\n".join(lines)


def control(path: Path) -> str:
    """Agreement with what the judge cannot see: expected to be about 0."""
    rows = read(path)
    if rows is None:
        return NOT_YET
    row = next(row for row in rows if row["scorer"] == "judge")
    models = ", ".join(f"{name} {told['srcc']:+.2f} (n = {told['n']})" for name, told in row["kinds"].items())
    about = "holds" if row["srcc_low"] <= 0.0 <= row["srcc_high"] else "does not hold"
    return (
        f"{row['data']}, {row['n']:,} generated pictures of people with their anatomy errors marked: SRCC "
        f"{interval(row, 'srcc')}; by model {models}. The judge does not see hands and faces, so about 0 is "
        f"expected; the interval {about} 0."
    )


def candidates_table(path: Path) -> str:
    """The heads that were compared on the validation part before one was chosen."""
    found = read(path)
    if found is None:
        return NOT_YET
    lines = [
        "| members, epochs | `--order-weight`, `--rank-weight`, `--norm-weight`, `--smooth-weight` | SRCC "
        "| difference (95 %, paired) | ladders of held-back contents: the score falls |",
        "|---|---|--:|---|---|",
    ]
    for row in found["rows"]:
        weights = ", ".join(f"{row['weights'][name]:g}" for name in ("order", "rank", "norm", "smooth"))
        told = "–" if row["difference"] is None else apart(row["difference"])
        falls = row["ladders"]
        lines.append(
            f"| {row['members']}, {row['epochs']} | {weights} | {row['srcc']:.4f} | {told} | {falls['share']:.1%} "
            f"({falls['low']:.1%} – {falls['high']:.1%}) |"
        )
    steps = found["rows"][0]["ladders"]["n"]
    return "\n".join([*lines, "", f"n = {found['n']:,} held-back pictures and {steps:,} steps of damage."])


def tuning_table(found: dict[str, Any], log: Path, tried: Path) -> str:
    """The log of the fine-tuning that made the file, and what it gained; then the fine-tunings that did not ship."""
    tuned = found["settings"].get("tuned")
    own = "This file's trunk is frozen; only its head was fitted." if tuned is None else _tuned(tuned, log)
    rows = read(tried)
    return own if rows is None else "\n".join([own, "", *_tried(rows)])


def _tried(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "Fine-tunings of trunk and head that did not ship, each against the head on frozen features where it began:",
        "",
        "| trained | SRCC, validation by content (95 %) | difference (95 %, paired) | ladders, held-back contents |",
        "|---|---|---|---|",
    ]
    for row in rows:
        tuned, gain = row["tuned"], row["tuned"]["gain"]
        what = (
            f"from {tuned['place']} on, {tuned['steps']:,} steps of {tuned['batch']}, rate {tuned['rate']:g}; the best "
        )
        what += f"validation's weights, of step {tuned['best']['step']:,}"
        told = f"{apart(gain)}, n = {gain['n']:,}"
        lines.append(f"| {what} | {interval(row['validation'], 'srcc')} | {told} | {_falls(tuned['best'])} |")
    if rows and "log" in rows[-1]:
        lines += ["", "The validations of the last of them, each on a part of the held-back pictures:", ""]
        lines += _log_table(rows[-1]["log"])
        lines += ["", "![SRCC, PLCC and the order of ladders over the steps](tried.png)"]
    return lines


def _falls(row: dict[str, Any]) -> str:
    falls = [f"{family} {one['fell']:.0f} of {one['n']:.0f}" for family, one in row["ladders"].items()]
    return ", ".join(falls) or "–"


def _tuned(tuned: dict[str, Any], log: Path) -> str:
    gain = tuned["gain"]
    lines = [
        f"Over the head on frozen features that it began from, on the same held-back pictures: SRCC "
        f"{apart(gain)}, n = {gain['n']:,}.",
        "",
    ]
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    return "\n".join([*lines, *_log_table([row for row in rows if "srcc" in row])])


def _log_table(rows: list[dict[str, Any]]) -> list[str]:
    """A fine-tuning's validations."""
    lines = [
        "| step | SRCC, validation by content | PLCC | steps of damage in which the score falls |",
        "|--:|--:|--:|---|",
    ]
    for row in rows:
        plcc = row.get("plcc", float("nan"))
        lines.append(f"| {row['step']:,} | {row['srcc']:.3f} | {plcc:.3f} | {_falls(row)} |")
    return lines
