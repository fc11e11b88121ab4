"""Good pictures damaged on purpose, rated: KADID-10k, TID2013, CSIQ, LIVE, PIPAL.

The content is the reference picture: no split may part its damaged forms. Kinds and levels come from the file names.
None of the pictures is part of this project.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import BadInput
from .rated import RatedImage, RatedSet, checked, find_root, scaled
from .tables import by_lower_name, field, mat, number, rows_of, text_of

#: KADID-10k's 25 kinds in the order of their numbers (Lin, Hosu and Saupe, 2019).
KADID_KINDS = (
    "gaussian blur", "lens blur", "motion blur", "colour diffusion", "colour shift", "colour quantisation",
    "saturation in HSV", "saturation in Lab", "jpeg 2000", "jpeg", "white noise", "white noise in YCbCr",
    "impulse noise", "multiplicative noise", "denoised noise", "brighten", "darken", "mean shift", "jitter",
    "displaced patches", "pixelate", "quantisation", "colour blocks", "over-sharpening", "contrast change",
)  # fmt: skip
#: TID2013's 24 kinds in the order of their numbers (Ponomarenko et al., 2015).
TID_KINDS = (
    "white noise", "noise in colour", "correlated noise", "masked noise", "high-frequency noise", "impulse noise",
    "quantisation noise", "gaussian blur", "denoised noise", "jpeg", "jpeg 2000", "jpeg transmission errors",
    "jpeg 2000 transmission errors", "displaced patterns", "colour blocks", "mean shift", "contrast change",
    "saturation change", "multiplicative noise", "comfort noise", "lossy compression of noise", "dithering",
    "chromatic aberration", "sparse sampling",
)  # fmt: skip
#: CSIQ's name of a kind in its list → (folder, the part of the file name).
_CSIQ = {
    "noise": ("awgn", "AWGN"), "blur": ("blur", "BLUR"), "contrast": ("contrast", "contrast"),
    "fnoise": ("fnoise", "fnoise"), "jpeg": ("jpeg", "JPEG"), "jpeg 2000": ("jpeg2000", "jpeg2000"),
}  # fmt: skip
_CSIQ_KINDS = {"noise": "white noise", "blur": "gaussian blur", "contrast": "contrast change", "fnoise": "pink noise"}
#: LIVE's folders in the order of its arrays, with how many pictures each holds, and what they are.
_LIVE = (("jp2k", 227), ("jpeg", 233), ("wn", 174), ("gblur", 174), ("fastfading", 174))
_LIVE_KINDS = {"jp2k": "jpeg 2000", "wn": "white noise", "gblur": "gaussian blur", "fastfading": "fast fading"}
#: Realigned difference scores run from -2.6 (a little better than its reference) to 111.8.
_LIVE_SCALE = (115.0, -5.0)
#: Elo ratings have no ends; the published ones run from 917 to 1836.
_PIPAL_SCALE = (800.0, 2000.0)


def kadid10k(folder: str | Path) -> RatedSet:
    """KADID-10k (Lin, Hosu and Saupe, 2019): 81 references × 25 kinds × 5 levels, 1…5, higher is better.

    ``images/`` and ``dmos.csv`` (dist_img, ref_img, dmos, var), whose column is named for differences but is a rating.
    """
    root = find_root(folder, "KADID-10k", "dmos.csv", "images")
    place = by_lower_name(root / "images")
    found = []
    for row in rows_of(root / "dmos.csv", "dist_img", "ref_img", "dmos"):
        name = field(row, "dist_img")
        kind, level = _numbered(name, KADID_KINDS)
        mos = scaled(number(field(row, "dmos"), name), (1.0, 5.0), name, "KADID-10k")
        found.append(RatedImage(place(name), mos, Path(field(row, "ref_img")).stem, "all", None, kind, level))
    return checked("KADID-10k", found)


def tid2013(folder: str | Path) -> RatedSet:
    """TID2013 (Ponomarenko et al., 2015): 25 references × 24 kinds × 5 levels, 0…9, higher is better.

    ``distorted_images/`` and ``mos_with_names.txt``: a rating and a name in each line; names differ in case.
    """
    root = find_root(folder, "TID2013", "mos_with_names.txt", "distorted_images")
    place = by_lower_name(root / "distorted_images")
    found = []
    for line in text_of(root / "mos_with_names.txt").split("\n"):
        if not line.strip():
            continue
        text, _, name = line.strip().partition(" ")
        kind, level = _numbered(name.strip(), TID_KINDS)
        mos = scaled(number(text, name), (0.0, 9.0), name, "TID2013")
        group = name.strip().upper().partition("_")[0]
        found.append(RatedImage(place(name.strip()), mos, group, "all", None, kind, level))
    return checked("TID2013", found)


def csiq(folder: str | Path) -> RatedSet:
    """CSIQ (Larson and Chandler, 2010): 30 references, 866 pictures of six kinds, DMOS 0…1, lower is better.

    ``dst_imgs/`` and ``csiq.DMOS.xlsx`` (sheet ``all_by_image``), or a CSV export of that sheet as ``csiq.DMOS.csv``.
    """
    root = find_root(folder, "CSIQ", "csiq.DMOS.xlsx|csiq.DMOS.csv", "dst_imgs")
    folders = by_lower_name(root / "dst_imgs")
    places = {kind: by_lower_name(folders(name)) for kind, (name, _) in _CSIQ.items()}
    found = []
    for row in rows_of(root / "csiq.DMOS.xlsx", "image", "dst_type", "dst_lev", "dmos", sheet="all_by_image"):
        reference, kind = field(row, "image"), field(row, "dst_type").lower()
        if not reference:
            continue  # the sheet is padded
        if kind not in _CSIQ:
            raise BadInput(f"a kind of damage out of {', '.join(_CSIQ)}", repr(kind), "Use the authors' own list.")
        level = int(number(field(row, "dst_lev"), reference))
        name = f"{reference}.{_CSIQ[kind][1]}.{level}.png"
        mos = scaled(number(field(row, "dmos"), name), (1.0, 0.0), name, "CSIQ")
        words = _CSIQ_KINDS.get(kind, kind)
        found.append(RatedImage(places[kind](name), mos, reference.lower(), "all", None, words, level))
    return checked("CSIQ", found)


def live(folder: str | Path) -> RatedSet:
    """LIVE, release 2 (Sheikh, Wang, Cormack and Bovik): 29 references, 779 pictures of five kinds, lower is better.

    ``dmos_realigned.mat`` (dmos_new, orgs), ``refnames_all.mat`` and the folders jp2k, jpeg, wn, gblur, fastfading with
    ``img1.bmp`` onwards. The hidden references among them (orgs) are left out. Levels are not told.
    """
    root = find_root(folder, "LIVE", "dmos_realigned.mat", "refnames_all.mat", *(name for name, _ in _LIVE))
    scores, hidden = (mat(root / "dmos_realigned.mat", name) for name in ("dmos_new", "orgs"))
    references = [str(name) for name in mat(root / "refnames_all.mat", "refnames_all")]
    paths = [root / name / f"img{place}.bmp" for name, count in _LIVE for place in range(1, count + 1)]
    if not len(paths) == len(scores) == len(hidden) == len(references):
        got = f"{len(scores)} scores, {len(hidden)} flags, {len(references)} reference names"
        raise BadInput(f"{len(paths)} entries in each array of LIVE", got, "Use the authors' own files.")
    found = []
    for path, dmos, is_reference, reference in zip(paths, scores, hidden, references, strict=True):
        if not is_reference:
            name = f"{path.parent.name}/{path.name}"
            mos = scaled(number(float(dmos), name), _LIVE_SCALE, name, "LIVE")
            kind = _LIVE_KINDS.get(path.parent.name, path.parent.name)
            found.append(RatedImage(path, mos, Path(reference).stem.lower(), "all", None, kind))
    return checked("LIVE", found)


def pipal(folder: str | Path) -> RatedSet:
    """PIPAL (Gu et al., 2020), the published training part: 200 references, 23,200 pictures, Elo, higher is better.

    ``Train_Label/A0001.txt`` onwards (a name and a rating in each line) and the pictures in ``Distortion_1/`` to
    ``Distortion_4/`` or in ``Train_Distort/``. Names hold the number of the kind; levels are not told.
    """
    root = find_root(folder, "PIPAL", "Train_Label", "Distortion_1|Train_Distort")
    pictures = [path for path in (root / "Train_Distort", *sorted(root.glob("Distortion_*"))) if path.is_dir()]
    place = by_lower_name(*pictures)
    found = []
    for listed in sorted((root / "Train_Label").glob("*.txt")):
        for line in text_of(listed).splitlines():
            if not line.strip():
                continue
            name, _, text = (part.strip() for part in line.partition(","))
            mos = scaled(number(text, name), _PIPAL_SCALE, name, "PIPAL")
            parts = Path(name).stem.split("_")
            kind = f"kind {parts[1]}" if len(parts) == 3 else None
            found.append(RatedImage(place(name), mos, parts[0], "train", None, kind))
    return checked("PIPAL", found)


def _numbered(name: str, kinds: Sequence[str]) -> tuple[str, int]:
    """``I01_07_3.bmp`` → the seventh kind, level 3.

    Raises:
        BadInput: the name is of another form.
    """
    found = re.fullmatch(r"[iI]\d+_(\d+)_(\d+)", Path(name).stem)
    if found is None or not 1 <= int(found[1]) <= len(kinds):
        raise BadInput("a picture's name such as I01_07_03", repr(name), "Use the authors' own list.")
    return kinds[int(found[1]) - 1], int(found[2])
