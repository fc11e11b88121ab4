"""The section of the embedded model's card on the research model, whose weights do not ship.

In core/assets/critic_ldm/research: training.json, which is that file of the model folder that `latent-critic train ldm`
exported; figures.json, which `latent-critic train ldm-check` wrote; shipped.json, the same of the shipped model on the
same pictures; lgdm.json, which `latent-critic fit-head --json` printed for an LGDM head. The last two may be missing.
The card's other figures are written by `train ldm-check --card`.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import readme
from card_parts import NOT_YET, interval, read
from latent_critic.core.heads.head_file import load_head
from latent_critic.core.methods.lgdm import SHIPPED as LGDM
from latent_critic.core.nets.critic_ldm import PARTS, SHIPPED, read_config, weight_file
from latent_critic.core.train.ldm.card import copies
from safetensors import safe_open

FOLDER = readme.ROOT / "core" / "assets" / "critic_ldm"
_NONE = "–"
_COPIES = "samples nearer to a training crop than every held-back picture is"
#: Sizes that the command takes, as the record names them.
_FLAGS = ("unet_channels", "unet_heads", "text_width", "text_layers")


def shipped_record() -> dict[str, Any]:
    """What a record of today tells, of the shipped files, which may be older."""
    unet, text = read_config(SHIPPED, "unet"), read_config(SHIPPED, "text_encoder")
    listed = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))["pictures"]
    held = sum(bool(row.get("held_back")) for row in listed)
    return {
        "pictures": {"train": len(listed) - held, "held_back": held},
        "sizes": {
            "unet_channels": unet["block_out_channels"],
            "unet_heads": unet["attention_head_dim"],
            "text_width": text["hidden_size"],
            "text_layers": text["num_hidden_layers"],
        },
        "parameters": {part: _values(weight_file(SHIPPED, part)) for part in PARTS},
        **json.loads((SHIPPED / "training.json").read_text(encoding="utf-8")),
    }


def _values(weights: Path) -> int:
    with safe_open(weights, framework="np") as handle:
        return sum(prod(handle.get_slice(name).get_shape()) for name in handle.keys())  # noqa: SIM118 (not a dict)


def training_rows(record: dict[str, Any]) -> dict[str, str]:
    """What was trained, on how much."""
    rows = {
        "pictures: trained on, held back": f"{record['pictures']['train']:,}, {record['pictures']['held_back']:,}",
        "sizes": " ".join(f"`--{name.replace('_', '-')} {_words(record['sizes'][name])}`" for name in _FLAGS),
    }
    named = {"unet": "U-Net", "text_encoder": "text encoder", "vae": "autoencoder"}
    rows |= {f"stored values: {words}": f"{record['parameters'][part]:,}" for part, words in named.items()}
    for stage in ("autoencoder", "denoiser"):
        sides = record[stage].get("sides")
        crops = f", on crops of {' and '.join(map(str, sides))} px" if sides else ""
        rows[f"{stage} steps"] = f"{record[stage]['steps']:,}{crops}"
    return rows


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def figure_rows(figures: dict[str, Any]) -> dict[str, str]:
    """What ldm-check measured."""
    return {
        f"PSNR at {figures['size']} px, {figures['held_back']} held-back pictures": f"{figures['psnr']:.2f} dB",
        **{f"AUC, words against damage: {kind}": f"{value:.3f}" for kind, value in figures["auc"].items()},
        _COPIES: copies(figures),
    }


def agreement_row(found: dict[str, Any], shipped: dict[str, Any]) -> tuple[str, str, str]:
    """Cross-validated agreement of LGDM heads; the shipped head's only where it is on as many pictures, alike."""
    alike = all(shipped.get(name) == found[name] for name in ("n", "how"))
    name = f"LGDM ridge head, SRCC (95 %), n = {found['n']:,}, {found['how']}"
    return name, interval(found, "srcc"), interval(shipped, "srcc") if alike else _NONE


def section(folder: Path) -> str:
    """The research model beside the shipped one.

    Raises:
        ValueError: the shipped model was measured otherwise.
    """
    record, figures = read(folder / "training.json"), read(folder / "figures.json")
    if record is None or figures is None:
        return NOT_YET
    beside, head = read(folder / "shipped.json"), read(folder / "lgdm.json")
    ours = training_rows(record) | figure_rows(figures)
    theirs = training_rows(shipped_record()) | (figure_rows(beside) if beside else {})
    if beside:
        theirs[_COPIES] = _NONE  # it was not trained on these pictures
    if beside and ours.keys() != theirs.keys():
        raise ValueError(f"{folder}: shipped.json is of {sorted(ours.keys() ^ theirs.keys())[0]}, figures.json is not")
    rows = [(name, value, theirs.get(name, _NONE)) for name, value in ours.items()]
    if head:
        rows.append(agreement_row(head["head"], dict(load_head(LGDM).meta.validation)))
    lines = ["| | research | shipped |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    missing = [kind for kind, value in figures["auc"].items() if value < 0.9]
    told = f"The research model misses AUC .90 at: {', '.join(missing)}." if missing else "All AUCs are .90 or more."
    reached = "reaches" if figures["psnr"] >= 27 else "misses"
    return "\n".join([*lines, "", f"{told} Its autoencoder {reached} 27 dB."])


def card(before: str) -> str:
    """The card with this section renewed."""
    return readme.fill(before, "research", section(FOLDER / "research"))
