"""Fill the parts of README.md that are never typed: the nodes' sockets and the measured accuracy.

    .venv/bin/python .ci/readme.py               both parts
    .venv/bin/python .ci/readme.py --check       change nothing; code 1 when README.md is out of date
    .venv/bin/python .ci/readme.py --pictures    also take the pictures that `python3 .ci/dev.py test` left behind

The nodes come from a real ComfyUI; the figures from every core/assets/*/benchmark.json, which is what
`latent-critic benchmark --json` printed for the shipped weights, and from core/assets/table/table.json, which is what
`latent-critic benchmark --all --json` printed for all of them on the same pictures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import comfyui

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TABLE = ROOT / "core" / "assets" / "table" / "table.json"
PICTURES = ROOT / "web" / "readme"
#: Name in the README → file that the check script leaves in .cache/artefacts, and the width to show.
TAKEN = {"contact_sheet.jpg": ("contact_sheet.png", 1400), "workflow.jpg": ("workflow score_a_folder.png", 1600)}
LARGEST_KB = 300


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between ``<!-- name:begin -->`` and ``<!-- name:end -->``."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, _, rest = text.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"README.md should hold {begin} … {end}")
    return f"{head}{begin}\n{content.strip()}\n{end}{tail}"


def nodes_table(nodes: Iterable[Mapping[str, Any]]) -> str:
    """One row per node: inputs → outputs. Inputs in brackets may stay unconnected."""
    lines = ["| node | in | out |", "|---|---|---|"]
    for node in nodes:
        given = ", ".join(f"[{item['id']}]" if item["optional"] else item["id"] for item in node["inputs"])
        out = ", ".join(item["name"] for item in node["outputs"])
        lines.append(f"| **{node['name']}** | {given or '–'} | {out or '–'} |")
    return "\n".join(lines)


def accuracy_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """One row per scorer and data set. SRCC with its 95 % interval."""
    lines = [
        "| scorer | data set | images | SRCC (95 % interval) | PLCC | KRCC | RMSE |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    for row in rows:
        interval = f"{row['srcc']:.3f} ({row['srcc_low']:.3f} – {row['srcc_high']:.3f})"
        scorer = f"`{row['scorer']}`" + (f" on `{_family(row['backbone'])}`" if row.get("backbone") else "")
        others = " | ".join("–" if row[key] is None else f"{row[key]:.3f}" for key in ("plcc", "krcc", "rmse"))
        lines.append(f"| {scorer} | {row['data']} {row['split']} | {row['n']:,} | {interval} | {others} |")
    return "\n".join(lines)


def beside_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All scorers on the same pictures: a row each, best on the first set first; costs are those on it."""
    sets = list(dict.fromkeys(row["data"] for row in rows))
    found = {(row["data"], row["scorer"]): row for row in rows}
    names = sorted({row["scorer"] for row in rows}, key=lambda name: -found[sets[0], name]["srcc"])
    lines = [
        f"| scorer | {' | '.join(map(_heading, sets))} | denoiser rows | images/s | spread |",
        f"|---|{'---|' * len(sets)}--:|--:|--:|",
    ]
    for name in names:
        first = found[sets[0], name]
        cells = [_figure(found[data, name]) for data in sets]
        costs = (
            f"{first['denoiser_calls'] or 0:g}",
            f"{first['images_per_second']:.1f}",
            f"{first['noise_spread']:.2f}",
        )
        lines.append(f"| `{name}` | {' | '.join([*cells, *costs])} |")
    return "\n".join(lines)


def _heading(data: str) -> str:
    return "ladders: the score falls" if data == "ladders" else f"{data}: SRCC"


def _figure(row: Mapping[str, Any]) -> str:
    if row.get("share") is None:
        return f"{row['srcc']:.3f} ({row['srcc_low']:.3f} – {row['srcc_high']:.3f})"
    return f"{row['share']:.1%} ({row['share_low']:.1%} – {row['share_high']:.1%})"


def _family(backbone: str) -> str:
    """The family in a fingerprint's text, ``lc1:FAMILY:…``; any other name as it is."""
    parts = backbone.split(":")
    return parts[1] if len(parts) > 1 else backbone


def shipped_figures() -> list[dict[str, Any]]:
    """The benchmark rows that lie beside shipped weights."""
    files = sorted(ROOT.glob("core/assets/*/benchmark.json"))
    return [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]


def shipped_nodes() -> list[dict[str, Any]]:
    """Every node that ComfyUI's search shows, beginners' nodes first."""
    command = [sys.executable, str(ROOT / ".ci" / "load_pack.py"), str(comfyui.find_or_fetch()), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    (nodes,) = json.loads(done.stdout.splitlines()[-1]).values()
    return sorted((node for node in nodes.values() if not node["hidden"]), key=lambda node: node["category"])


def take_pictures() -> None:
    """JPEG copies of the run's pictures, at the best quality that stays small."""
    from PIL import Image

    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, (source, width) in TAKEN.items():
        picture = Image.open(ROOT / ".cache" / "artefacts" / source).convert("RGB")
        if picture.width > width:
            picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
        for quality in (90, 85, 80, 70, 60):
            picture.save(PICTURES / name, quality=quality, optimize=True)
            if (PICTURES / name).stat().st_size <= LARGEST_KB * 1000:
                break


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--pictures", action="store_true", help="take the last run's pictures")
    arguments = parser.parse_args()
    if arguments.pictures:
        take_pictures()
    before = README.read_text(encoding="utf-8")
    after = fill(before, "nodes", nodes_table(shipped_nodes()))
    after = fill(after, "accuracy", accuracy_table(shipped_figures()))
    if TABLE.exists():
        after = fill(after, "beside", beside_table(json.loads(TABLE.read_text(encoding="utf-8"))))
    if arguments.check:
        sys.stdout.write(
            "README.md is up to date\n" if after == before else "README.md is out of date: run readme.py\n"
        )
        return int(after != before)
    README.write_text(after, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
