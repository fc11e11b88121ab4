"""Generated pictures, rated, with their prompts: AGIQA-1K, AGIQA-3K, AIGIQA-20K; and a negative control.

The content is the prompt: no split may part the pictures of one prompt. None of the pictures is part of this project.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

from ..errors import UnreadableFile
from .rated import RatedImage, RatedSet, Split, checked, find_root, scaled
from .tables import Row, by_lower_name, field, number, rows_of

_FIVE = (0.0, 5.0)
_log = logging.getLogger(__name__)


def agiqa1k(folder: str | Path) -> RatedSet:
    """AGIQA-1K (Zhang et al., 2023): 1,080 pictures of two models, normalised MOS 0…5, higher is better.

    ``AIGC_MOS_Zscore.xlsx`` (Image, Prompt, MOS), or a CSV export of it, and the unpacked pictures in ``file/``,
    ``images/`` or beside the list. The published list gives one picture (dreamStudio_8_9_1_1.jpg) two ratings: a
    picture that is listed more than once is left out, and the log says so.
    """
    root = find_root(folder, "AGIQA-1K", "AIGC_MOS_Zscore.xlsx|AIGC_MOS_Zscore.csv")
    listed = rows_of(root / "AIGC_MOS_Zscore.xlsx", "Image", "Prompt", "MOS")
    times = Counter(field(row, "Image").lower() for row in listed)
    rows = [row for row in listed if times[field(row, "Image").lower()] == 1]
    for name in (name for name, count in times.items() if count > 1):
        _log.warning("AGIQA-1K: %s is listed with %d ratings; it is left out.", name, times[name])
    return checked("AGIQA-1K", _generated("AGIQA-1K", root, rows, ("Image",), ("MOS",)))


def agiqa3k(folder: str | Path) -> RatedSet:
    """AGIQA-3K (Li et al., 2023): 2,982 pictures of six models, quality MOS 0…5, higher is better.

    ``data.csv`` (name, prompt, …, mos_quality, …) and its pictures in ``file/``, ``images/`` or beside the list.
    What people said of the match with the prompt (mos_align) is not read.
    """
    root = find_root(folder, "AGIQA-3K", "data.csv")
    rows = rows_of(root / "data.csv", "name", "prompt", "mos_quality")
    return checked("AGIQA-3K", _generated("AGIQA-3K", root, rows, ("name",), ("mos_quality",)))


def aigiqa20k(folder: str | Path) -> RatedSet:
    """AIGIQA-20K (Li et al., 2024; published as AIGCQA-30K-Image): 20,000 pictures of 15 models, MOS 0…5.

    ``info_train.csv``, ``info_val.csv``, ``info_test.csv`` (name, prompt, mos) with ``train/``, ``val/``, ``test/``.
    A part whose list is not there, or was published without ratings, is left out, and the log says so.
    """
    root = find_root(folder, "AIGIQA-20K", "info_train.csv|info_val.csv|info_test.csv")
    parts: tuple[tuple[str, Split], ...] = (("train", "train"), ("val", "validation"), ("test", "test"))
    found: list[RatedImage] = []
    for part, split in parts:
        path = root / f"info_{part}.csv"
        rows = rows_of(path, "name", "prompt") if path.exists() else []
        if not rows or "mos" not in rows[0]:
            _log.warning("AIGIQA-20K: no ratings of its %s part in %s; it is left out.", part, root)
            continue
        found += _generated("AIGIQA-20K", root, rows, ("name",), ("mos",), split, (part,))
    return checked("AIGIQA-20K", found)


def _generated(
    where: str,
    root: Path,
    rows: list[Row],
    names: tuple[str, ...],
    scores: tuple[str, ...],
    split: Split = "all",
    folders: tuple[str, ...] = ("images", "image", "file", "AGIQA-3K"),
) -> list[RatedImage]:
    """Rows of name, prompt and rating → pictures. The kind is the generator: what stands before the first ``_``."""
    place = by_lower_name(*([root / name for name in folders if (root / name).is_dir()] or [root]))
    found = []
    for row in rows:
        name, prompt = field(row, *names), field(row, "prompt")
        mos = scaled(number(field(row, *scores), name), _FIVE, name, where)
        found.append(RatedImage(place(name), mos, prompt or name, split, prompt, name.partition("_")[0]))
    return found


#: How much each degree of an anatomy error takes, as the authors' script weighs them.
_DEGREES = {"a": 0.2, "b": 0.5, "c": 1.0}


def ai_human_images(folder: str | Path) -> RatedSet:
    """hastingslab-org/ai-human-images: 240 pictures of people by three models, with their anatomy errors marked.

    A negative control: what is told is 100 without errors and 100 · 2^-sum with them (degree a counts 0.2, b 0.5, c 1;
    the mean of the annotators), so a scorer that does not see hands and faces agrees with it about 0.

    ``data/annotations.csv`` (Image Id, Model, Prompt, Pic Num., a column for each error of a part, Annotator)
    and ``images/<model>/<prompt>/``, whose names end in the picture's number (one is published as 018 for 08).
    """
    root = find_root(folder, "ai-human-images", "data/annotations.csv", "images")
    errors: dict[tuple[str, str, int], list[float]] = {}
    for row in rows_of(root / "data" / "annotations.csv", "Image Id", "Model", "Prompt", "Pic Num.", "Annotator"):
        key = (field(row, "Model"), field(row, "Prompt"), int(number(field(row, "Pic Num."), field(row, "Image Id"))))
        errors.setdefault(key, []).append(_errors(row))
    found, missing = [], []
    for (model, prompt, place), told in errors.items():
        path = _person(root / "images", model, prompt, place)
        if path is None:
            missing.append(f"{model}, {prompt}, {place}")
            continue
        mos = 100.0 * 2.0 ** -(sum(told) / len(told))
        found.append(RatedImage(path, mos, prompt, "test", prompt, model))
    if missing:
        got = f"{len(missing)} of {len(errors)} missing: {'; '.join(missing[:5])}"
        raise UnreadableFile(f"every annotated picture in {root / 'images'}", got, "Complete the download.")
    return checked("ai-human-images", found)


def _errors(row: Row) -> float:
    """Weighed errors of a row: cells such as ``1/3a,2/5c``, whose last letter is the degree."""
    cells = [text for name, text in row.items() if re.match(r"\d\. .*-\d\.\d ", name)]
    degrees = [part.strip()[-1:].lower() for cell in cells for part in cell.split(",") if part.strip()]
    return sum(_DEGREES.get(degree, 0.0) for degree in degrees)


def _person(images: Path, model: str, prompt: str, place: int) -> Path | None:
    """A picture of this model, prompt and number; folders differ from the list in case and in their signs."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    for folder in sorted(path for path in images.glob("*/*") if path.is_dir()):
        if plain(folder.parent.name) == plain(model) and plain(folder.name) == plain(prompt):
            found = {int(told[1]): path for path in folder.iterdir() if (told := re.search(r"(\d+)$", path.stem))}
            mistyped = next((path for number_of, path in found.items() if number_of % 10 == place), None)
            return found.get(place, mistyped)
    return None
