"""Loaders: a folder as its authors publish it → a :class:`RatedSet`. Data itself is never part of this project."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import BadInput, UnreadableFile
from .rated import RatedImage, RatedSet, Split, checked


def biq2021(folder: str | Path) -> RatedSet:
    """BIQ2021 (Ahmed & Asif 2022; repository nisarahmedrana/BIQ2021): 10,000 train and 2,000 test photographs.

    ``folder`` holds ``Images/`` and the two official lists. MOS 0…1 becomes 0…100. Every photograph is its own group.
    """
    folder = Path(folder)
    found: list[RatedImage] = []
    place = _by_lower_name(folder / "Images")
    parts: tuple[tuple[str, Split], ...] = (("Train", "train"), ("Test", "test"))
    for part, split in parts:
        for name, text in _rows(folder / f"{part} (Images and MOS).csv"):
            path = place.get(name.lower(), folder / "Images" / name)
            found.append(RatedImage(path, 100.0 * _number(text, name), Path(name).stem, split))
    return checked("BIQ2021", found)


def mmp2k(folder: str | Path) -> RatedSet:
    """MMP-2K (repository SJHPCJS/MMP-2K-Subjective-Study-Platform): 2,000 macro photographs, MOS 0…100, report only.

    ``folder`` is the repository, or the folder that holds the pictures and ``final_image_mos.json``.
    """
    folder = Path(folder)
    inner = folder / "backend" / "server" / "image_base"
    folder = inner if inner.is_dir() else folder
    ratings = json.loads(_text(folder / "final_image_mos.json"))
    if not isinstance(ratings, dict):
        raise BadInput("a JSON object of picture number to rating", type(ratings).__name__, "Use the authors' file.")
    pairs = sorted(ratings.items(), key=lambda pair: (len(pair[0]), pair[0]))
    return checked(
        "MMP-2K",
        [RatedImage(folder / f"{name}.jpg", _number(mos, name), str(name), "test") for name, mos in pairs],
    )


def rated_csv(
    file: str | Path,
    images: str | Path | None = None,
    *,
    scale: tuple[float, float] = (0.0, 100.0),
    split: Split = "all",
) -> RatedSet:
    """Any list of picture and rating: first column the path, second the rating, third (if any) the content group.

    Args:
        file: The CSV file; a first row whose second field is no number is taken as the heading.
        images: What relative paths are relative to; the list's own folder when ``None``.
        scale: Lowest and highest possible rating; higher is better. Swap the two where lower is better.
        split: What part these pictures are.
    """
    file = Path(file)
    low, high = scale
    if low == high:
        raise BadInput("a scale whose ends differ", f"{low:g} to {high:g}", "Give the lowest and highest rating.")
    root = Path(images) if images is not None else file.parent
    found = []
    for name, text, *rest in _rows(file, fields=3):
        mos = 100.0 * (_number(text, name) - low) / (high - low)
        found.append(RatedImage(root / name, mos, rest[0] if rest and rest[0] else name, split))
    return checked(file.stem, found)


LOADERS: dict[str, Callable[[str | Path], RatedSet]] = {"biq2021": biq2021, "mmp2k": mmp2k, "csv": rated_csv}


def load(name: str, folder: str | Path) -> RatedSet:
    """A data set by its loader's name.

    Raises:
        BadInput: no such loader, or a broken list.
        UnreadableFile: files are missing.
    """
    if name not in LOADERS:
        raise BadInput(f"a data set out of {', '.join(LOADERS)}", repr(name), "Use csv for any other list.")
    return LOADERS[name](folder)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        got = "no such file" if not path.exists() else f"{type(error).__name__}: {error}"
        raise UnreadableFile(f"the list of ratings {path.name}", got, f"Look into {path.parent}.") from error


def _rows(path: Path, fields: int = 2) -> Iterator[list[str]]:
    """Rows with their empty trailing columns cut off and the heading left out."""
    for number, row in enumerate(csv.reader(_text(path).splitlines())):
        row = [field.strip() for field in row][:fields]
        if not any(row):
            continue
        if len(row) < 2 or not row[0]:
            raise BadInput("a path and a rating per row", f"{row} in row {number + 1}", f"Repair {path.name}.")
        if number == 0 and not _is_number(row[1]):
            continue
        yield row


def _by_lower_name(folder: Path) -> dict[str, Path]:
    """Lower-case name → file: BIQ2021 lists one ``.JPG`` as ``.jpg``, which only some file systems forgive."""
    return {path.name.lower(): path for path in folder.iterdir()} if folder.is_dir() else {}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str | float, name: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError) as error:
        raise BadInput("a rating that is a number", f"{text!r} for {name}", "Repair this row of the list.") from error
