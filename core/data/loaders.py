"""Loaders: a folder as its authors publish it → a :class:`RatedSet`. Data itself is never part of this project."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import BadInput
from .damaged import csiq, kadid10k, live, pipal, tid2013
from .generated import agiqa1k, agiqa3k, ai_human_images, aigiqa20k
from .photographs import clive, flive, koniq10k, spaq
from .rated import RatedImage, RatedSet, Split, checked, find_root, scaled
from .tables import by_lower_name, cells, number, text_of


def biq2021(folder: str | Path) -> RatedSet:
    """BIQ2021 (Ahmed & Asif 2022; repository nisarahmedrana/BIQ2021): 10,000 train and 2,000 test photographs.

    ``folder`` holds ``Images/`` and the two official lists. MOS 0…1 becomes 0…100. Every photograph is its own group.
    """
    parts: tuple[tuple[str, Split], ...] = (("Train", "train"), ("Test", "test"))
    folder = find_root(folder, "BIQ2021", "Images", *(f"{part} (Images and MOS).csv" for part, _ in parts))
    found: list[RatedImage] = []
    place = by_lower_name(folder / "Images")
    for part, split in parts:
        for name, text in _rows(folder / f"{part} (Images and MOS).csv"):
            mos = scaled(number(text, name), (0.0, 1.0), name, "BIQ2021")
            found.append(RatedImage(place(name), mos, Path(name).stem, split))
    return checked("BIQ2021", found)


def mmp2k(folder: str | Path) -> RatedSet:
    """MMP-2K (repository SJHPCJS/MMP-2K-Subjective-Study-Platform): 2,000 macro photographs, MOS 0…100, report only.

    ``folder`` is the repository, or the folder that holds the pictures and ``final_image_mos.json``.
    """
    listed, inner = "final_image_mos.json", "backend/server/image_base"
    folder = find_root(folder, "MMP-2K", f"{listed}|{inner}/{listed}")
    folder = folder / inner if (folder / inner).is_dir() else folder
    ratings = json.loads(text_of(folder / listed))
    if not isinstance(ratings, dict):
        raise BadInput("a JSON object of picture number to rating", type(ratings).__name__, "Use the authors' file.")
    pairs = sorted(ratings.items(), key=lambda pair: (len(pair[0]), pair[0]))
    return checked(
        "MMP-2K",
        [
            RatedImage(folder / f"{name}.jpg", scaled(number(mos, name), (0.0, 100.0), name, "MMP-2K"), name, "test")
            for name, mos in pairs
        ],
    )


def rated_csv(
    file: str | Path,
    images: str | Path | None = None,
    *,
    scale: tuple[float, float] = (0.0, 100.0),
    split: Split = "all",
) -> RatedSet:
    """Any list of picture and rating: first column the path, second the rating; then, if any, the content
    group and the prompt.

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
    for name, text, *rest in _rows(file, fields=4):
        mos = scaled(number(text, name), scale, name, file.stem)
        group, prompt = (*rest, "", "")[:2]
        found.append(RatedImage(root / name, mos, group or name, split, prompt or None))
    return checked(file.stem, found)


#: Loader's name on the command line → the function that reads the authors' layout.
LOADERS: dict[str, Callable[[str | Path], RatedSet]] = {
    "biq2021": biq2021,
    "mmp2k": mmp2k,
    "koniq10k": koniq10k,
    "clive": clive,
    "spaq": spaq,
    "flive": flive,
    "kadid10k": kadid10k,
    "tid2013": tid2013,
    "csiq": csiq,
    "live": live,
    "pipal": pipal,
    "agiqa1k": agiqa1k,
    "agiqa3k": agiqa3k,
    "aigiqa20k": aigiqa20k,
    "ai_human_images": ai_human_images,
    "csv": rated_csv,
}


def load(name: str, folder: str | Path) -> RatedSet:
    """A data set by its loader's name.

    Raises:
        BadInput: no such loader, or a broken list.
        UnreadableFile: files are missing.
    """
    if name not in LOADERS:
        raise BadInput(f"a data set out of {', '.join(LOADERS)}", repr(name), "Use csv for any other list.")
    return LOADERS[name](folder)


def _rows(path: Path, fields: int = 2) -> Iterator[list[str]]:
    """Rows with their empty trailing columns cut off and the heading left out."""
    for place, row in enumerate(cells(path)):
        row = row[:fields]
        if len(row) < 2 or not row[0]:
            raise BadInput("a path and a rating per row", f"{row} in row {place + 1}", f"Repair {path.name}.")
        if place == 0 and not _is_number(row[1]):
            continue
        yield row


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
