"""The measured parts of the shipped restorer's card.

Facts come from the file's metadata, figures from check.json, check_10.json (with --steps 10) and check_shared.json
(with --shared embedded), which are what `latent-critic train restorer-check --json` printed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import readme
from card_parts import NOT_YET, plain_table, read
from safetensors import safe_open

FOLDER = readme.ROOT / "core" / "assets" / "restorer"
WEIGHTS = FOLDER / "restorer.safetensors"


def facts_table(weights: Path) -> str:
    """What the file says of itself."""
    with safe_open(weights, framework="np") as handle:
        found = json.loads(handle.metadata()["latent_critic_restorer"])
        values = sum(handle.get_tensor(name).size for name in handle.keys())  # noqa: SIM118 (not a dict)
    shape, training, validation = found["shape"], found["training"], found["validation"]
    channels = ", ".join(str(shape["inner"] * factor) for factor in shape["multipliers"])
    return plain_table(
        {
            "file": f"{weights.stat().st_size / 1e3:.0f} kB, fp16; {values:,} values, levels of {channels} channels",
            "denoiser calls": f"{found['steps']} for a picture or a tile, eta {found['eta']:g}",
            "training pictures": f"{training['pictures']:,}; {training['held_back']} others were held back",
            "damage it was trained on": ", ".join(kind.replace("_", " ") for kind in training["kinds"]),
            "steps": f"{training['step']:,} of {training['batch']} pairs of {training['side']}×{training['side']} px",
            "held-back pairs": f"PSNR {validation['psnr_damaged']:.2f} dB damaged, {validation['psnr_restored']:.2f} "
            f"dB restored, {100 * validation['nearer']:.0f} % of {validation['n']} nearer to the original",
        }
    )


def check_table(rows: list[dict[str, Any]]) -> str:
    """Damaged against restored, kinds that training saw apart from those that it did not."""
    lines = [
        "| damage | trained on | n | PSNR, damaged → restored | gain in dB (95 %) | fall of psi (95 %) |",
        "|---|---|--:|---|---|---|",
    ]
    for row in rows:
        name = row["kinds"].replace("_", " ")
        psnr, gain, fall = row["psnr"], row["psnr_gain"], row["psi_gain"]
        lines.append(
            f"| {name} | {'yes' if row['seen'] else 'no'} | {row['n']:,} | {psnr[0]:.2f} → {psnr[1]:.2f} | "
            f"{gain[0]:+.2f} ({gain[1]:+.2f} – {gain[2]:+.2f}) | {fall[0]:+.3f} ({fall[1]:+.3f} – {fall[2]:+.3f}) |"
        )
    return "\n".join(lines)


def more_calls(few: list[dict[str, Any]], many: list[dict[str, Any]]) -> str:
    """What more calls bring on the same damaged pictures."""
    apart = max(abs(a["psnr"][1] - b["psnr"][1]) for a, b in zip(few, many, strict=True))
    told = [
        f"{row['kinds']} {row['psnr_gain'][0]:+.2f} dB ({row['psnr_gain'][1]:+.2f} – {row['psnr_gain'][2]:+.2f})"
        for row in many
        if row["kinds"] in ("seen", "not seen")
    ]
    return f"Ten calls: {', '.join(told)}. No kind's mean PSNR is further than {apart:.4f} dB from that of four calls."


def shared_table(rows: list[dict[str, Any]]) -> str:
    """The loaded model was trained on no damage: kinds side by side."""
    every = [row for row in rows if row["kinds"] not in ("seen", "not seen")]
    lines = [
        "| damage | n | PSNR, damaged → restored | gain in dB (95 %) | fall of psi (95 %) |",
        "|---|--:|---|---|---|",
    ]
    for row in every:
        psnr, gain, fall = row["psnr"], row["psnr_gain"], row["psi_gain"]
        lines.append(
            f"| {row['kinds'].replace('_', ' ')} | {row['n']:,} | {psnr[0]:.2f} → {psnr[1]:.2f} | "
            f"{gain[0]:+.2f} ({gain[1]:+.2f} – {gain[2]:+.2f}) | {fall[0]:+.3f} ({fall[1]:+.3f} – {fall[2]:+.3f}) |"
        )
    nearer = [row["kinds"].replace("_", " ") for row in every if row["psnr_gain"][1] > 0]
    return "\n".join([*lines, "", f"Nearer to the original by PSNR, beyond chance: {', '.join(nearer) or 'no kind'}."])


def card(before: str) -> str:
    """The card with its measured parts renewed."""
    after = readme.fill(before, "facts", facts_table(WEIGHTS))
    rows, many, shared = (read(FOLDER / f"{name}.json") for name in ("check", "check_10", "check_shared"))
    after = readme.fill(after, "check", check_table(rows) if rows else NOT_YET)
    after = readme.fill(after, "calls", more_calls(rows, many) if rows and many else NOT_YET)
    return readme.fill(after, "shared", shared_table(shared) if shared else NOT_YET)
