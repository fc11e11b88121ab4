"""Photographs with the faults that cameras and people gave them, rated: KonIQ-10k, CLIVE, SPAQ, FLIVE.

Every photograph is a content of its own. None of the pictures is part of this project.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .rated import RatedImage, RatedSet, Split, checked, find_root, scaled
from .tables import by_lower_name, field, mat, number, rows_of

_HUNDRED = (0.0, 100.0)
_KONIQ_SPLITS: dict[str, Split] = {"training": "train", "validation": "validation", "test": "test"}


def koniq10k(folder: str | Path) -> RatedSet:
    """KonIQ-10k (Hosu, Lin, Szirányi and Saupe, 2020): 10,073 photographs, MOS 0…100, higher is better.

    ``1024x768/`` (or ``512x384/``) with ``koniq10k_distributions_sets.csv``, whose column ``set`` holds the official
    training, validation and test parts; or with ``koniq10k_scores_and_distributions.csv`` (MOS_zscore), which has none.
    """
    listed = "koniq10k_distributions_sets.csv"
    root = find_root(folder, "KonIQ-10k", "1024x768|512x384", f"{listed}|koniq10k_scores_and_distributions.csv")
    pictures = root / ("1024x768" if (root / "1024x768").is_dir() else "512x384")
    official = (root / listed).exists()
    column = "MOS" if official else "MOS_zscore"
    needed = ("image_name", column, "set") if official else ("image_name", column)
    rows = rows_of(root / (listed if official else "koniq10k_scores_and_distributions.csv"), *needed)
    return checked(
        "KonIQ-10k",
        [
            _photograph(pictures / field(row, "image_name"), field(row, column), "KonIQ-10k", _koniq_split(row))
            for row in rows
        ],
    )


def _koniq_split(row: dict[str, str]) -> Split:
    return _KONIQ_SPLITS.get(field(row, "set").lower(), "all")


def clive(folder: str | Path) -> RatedSet:
    """CLIVE, LIVE In the Wild (Ghadiyaram and Bovik, 2016): 1,162 phone photographs, MOS 0…100, higher is better.

    ``ChallengeDB_release`` with ``Data/AllImages_release.mat``, ``Data/AllMOS_release.mat`` and ``Images/``. The first
    seven entries are the study's training pictures (``Images/trainingImages``): they are left out, as is usual.
    """
    root = find_root(folder, "CLIVE", "Data/AllImages_release.mat", "Data/AllMOS_release.mat", "Images")
    names = [str(name) for name in mat(root / "Data" / "AllImages_release.mat", "AllImages_release")]
    scores = mat(root / "Data" / "AllMOS_release.mat", "AllMOS_release")
    place = by_lower_name(root / "Images")
    pairs = list(zip(names, scores, strict=True))[7:]
    return checked("CLIVE", [_photograph(place(name), float(mos), "CLIVE", "all") for name, mos in pairs])


def spaq(folder: str | Path) -> RatedSet:
    """SPAQ (Fang, Zhu, Zeng, Ma and Wang, 2020): 11,125 smartphone photographs, MOS 0…100, higher is better.

    ``Annotations/MOS and Image attribute scores.xlsx`` (or a CSV export of it) and ``TestImage/``.
    """
    stem = "Annotations/MOS and Image attribute scores"
    root = find_root(folder, "SPAQ", f"{stem}.xlsx|{stem}.csv", "TestImage")
    place = by_lower_name(root / "TestImage")
    rows = rows_of(root / f"{stem}.xlsx", "Image name", "MOS")
    return checked("SPAQ", [_photograph(place(field(r, "Image name")), field(r, "MOS"), "SPAQ", "all") for r in rows])


def flive(folder: str | Path) -> RatedSet:
    """FLIVE, also LIVE-FB or PaQ-2-PiQ (Ying et al., 2020): 39,810 photographs, MOS 0…100, higher is better.

    ``labels_image.csv`` (name, mos) with the pictures under ``database/`` or beside it. The official parts are in two
    more lists of the repository baidut/PaQ-2-PiQ: ``labels>640.csv`` is the test part, ``is_valid`` in
    ``labels<=640_padded.csv`` the validation part (both also without the sign, as some systems need them). Without
    them nothing is split. Patches are not read.
    """
    root = find_root(folder, "FLIVE", "labels_image.csv")
    pictures = root / "database" if (root / "database").is_dir() else root
    tested = {field(row, "name_image") for row in _listed(root, ("labels>640.csv", "labels640.csv"))}
    padded = _listed(root, ("labels<=640_padded.csv", "labels=640_padded.csv"), "is_valid")
    valid = {field(row, "name_image") for row in padded if field(row, "is_valid").lower() in ("true", "1")}

    def split(name: str) -> Split:
        return "test" if name in tested else "validation" if name in valid else "train" if tested else "all"

    rows = rows_of(root / "labels_image.csv", "name", "mos")
    found = [_photograph(pictures / (n := field(r, "name")), field(r, "mos"), "FLIVE", split(n)) for r in rows]
    return checked("FLIVE", found)


def _listed(root: Path, names: Iterable[str], *more: str) -> list[dict[str, str]]:
    path = next((root / name for name in names if (root / name).exists()), None)
    return [] if path is None else rows_of(path, "name_image", *more)


def _photograph(path: Path, text: str | float, where: str, split: Split) -> RatedImage:
    mos = scaled(number(text, path.name), _HUNDRED, path.name, where)
    return RatedImage(path, mos, path.stem, split)
