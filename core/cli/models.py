"""``latent-critic models``: the diffusion model families known, and the weights that ship."""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path
from typing import Any

from ..errors import UnreadableFile
from .arguments import Subparsers, add_json, check_targets, command


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(subparsers, "models", "list the model families known and the weights that ship")
    add_json(parser, "a JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print families and assets."""
    from .console import say, table
    from .results import write_json

    families, assets = _families(), _assets(Path(__file__).parents[1] / "assets")
    check_targets(arguments.json)
    if arguments.json:
        write_json({"families": families, "assets": assets}, arguments.json)
        return 0
    say("Diffusion models whose loaded copy can be used for scoring:")
    cells = [["family", "prediction", "native size", "text"]]
    cells += [[f["name"], f["prediction"], str(f["native_size"]), f["text_layout"]] for f in families]
    say(table(cells, right=[2]))
    say("\nWeights that ship:")
    for asset in assets:
        say(f"{asset['name']}  {asset['bytes'] / 1e6:.1f} MB  {asset['path']}")
        say(f"  card: {asset['card'] or 'none'}")
        for key, value in asset["metadata"].items():
            say(f"  {key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    return 0


def _families() -> list[dict[str, Any]]:
    from ..backbone.families import REGISTRY

    return [
        {
            "name": row.name,
            "prediction": ", ".join(row.predictions),
            "native_size": row.native_size,
            "text_layout": row.text_layout,
        }
        for row in REGISTRY
    ]


def _assets(root: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(root.rglob("*.safetensors")):
        # The card lies beside the weights, or above them where several files share one.
        inside = [folder for folder in path.parents if root in folder.parents]
        cards = [card for folder in inside for card in sorted(folder.glob("*.md"))]
        found.append(
            {
                "name": f"{path.parent.name}/{path.name}",
                "path": str(path),
                "bytes": path.stat().st_size,
                "card": str(cards[0]) if cards else None,
                "metadata": _metadata(path),
            }
        )
    return found


def _metadata(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file, read from its header alone: its values are JSON where they parse as such."""
    with path.open("rb") as file:
        try:
            (size,) = struct.unpack("<Q", file.read(8))
            texts = json.loads(file.read(size)).get("__metadata__", {})
        except (struct.error, ValueError, MemoryError, OverflowError) as error:
            raise UnreadableFile(f"a safetensors file at {path}", str(error), "Install the package again.") from error
    found = {key: _value(text) for key, text in texts.items()}
    # Our own files keep their facts under one name of theirs.
    (only,) = found.values() if len(found) == 1 else (None,)
    return only if isinstance(only, dict) else found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
