"""Does a restorer bring damaged pictures nearer to the originals? PSNR and psi, on damage it saw and damage it did not.

Every picture is damaged in every kind at some severities. Figures are means over these, their intervals by
bootstrapping their contents; gains are paired, restored against damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.distortions import KINDS, distort
from ..data.held_out import HELD_OUT_KINDS, held_out_damage
from ..data.similarity import psnr
from ..errors import BadInput
from ..images import load_image
from ..perceptual.contract import Psi
from ..restoration.contract import Restorer
from .bootstrap import bootstrap_interval

#: Severities that are measured: the mildest changes little, the worst leaves little.
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True)
class Gain:
    """One group of damaged pictures.

    Attributes:
        kinds: ``seen``, ``not seen``, or one kind's name.
        seen: Whether training saw this damage.
        n: Damaged pictures.
        missing: Of them without a restoration.
        psnr: Damaged and restored, dB.
        psnr_gain: In dB, with its 95 % interval over contents; > 0 is nearer.
        psi: Squared distance to the original, damaged and restored.
        psi_gain: By how much it fell, with its interval; > 0 is nearer.
        nearer: Share whose PSNR rose, and whose psi fell.
    """

    kinds: str
    seen: bool
    n: int
    missing: int
    psnr: tuple[float, float]
    psnr_gain: tuple[float, float, float]
    psi: tuple[float, float]
    psi_gain: tuple[float, float, float]
    nearer: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class _Damaged:
    content: int
    kind: str
    seen: bool


def measure_restorer(
    pictures: Sequence[Path],
    restorer: Restorer,
    psi: Psi,
    *,
    contents: Sequence[str] | None = None,
    trained_on: Sequence[str] = KINDS,
    side: int = 256,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    resamples: int = 1000,
    watch: Callable[[int, int], None] | None = None,
) -> list[Gain]:
    """``seen``, ``not seen``, then every kind.

    Args:
        pictures: Good pictures that training did not see; of each, the middle ``side`` × ``side`` pixels.
        restorer: Whom to measure.
        psi: Of pixels.
        contents: Of each picture; what shares one (frames of a video) is drawn together for the intervals. Every
            picture its own when left out.
        trained_on: The kinds that it saw.
        side: Of the crops.
        severities: Of the damage.
        seed: Of the damage's noise and of the intervals.
        resamples: Of the bootstrap.
        watch: Called with (kinds and pictures done, in all); may raise to stop.

    Raises:
        BadInput: no pictures, or none as large as the crops.
        UnreadableFile: a picture cannot be read.
    """
    if contents is not None and len(contents) != len(pictures):
        raise BadInput(f"{len(pictures)} contents, one per picture", str(len(contents)), "Leave them out.")
    numbers = range(len(pictures)) if contents is None else [contents.index(content) for content in contents]
    found: list[_Damaged] = []
    values: list[np.ndarray] = []
    kinds = [*KINDS, *HELD_OUT_KINDS]
    for place, path in enumerate(pictures):
        clean = _middle(load_image(path), side)
        for number, kind in enumerate(kinds):
            damage = distort if kind in KINDS else held_out_damage
            damaged = torch.stack([damage(clean, kind, severity, seed + place) for severity in severities])
            values.append(_values(clean, damaged, restorer, psi))
            found += [_Damaged(numbers[place], kind, kind in trained_on)] * len(damaged)
            if watch is not None:
                watch(place * len(kinds) + number + 1, len(pictures) * len(kinds))
    if not found:
        raise BadInput("pictures to restore", "none", "Name a folder of good pictures.")
    table = np.concatenate(values)
    groups = [("seen", True), ("not seen", False), *((kind, kind in trained_on) for kind in kinds)]
    rows = []
    for name, seen in groups:
        places = [at for at, one in enumerate(found) if _is_in(one, name, seen)]
        if places:
            owners = [found[at].content for at in places]
            rows.append(_gain(name, seen, table[places], owners, resamples, seed))
    return rows


def _is_in(one: _Damaged, name: str, seen: bool) -> bool:
    """Whether a damaged picture belongs to a row: of its kind, or of all kinds that were seen or not."""
    return one.kind == name or (name in ("seen", "not seen") and one.seen == seen)


def _middle(image: Tensor, side: int) -> Tensor:
    height, width = image.shape[1:]
    if min(height, width) < side:
        raise BadInput(f"pictures from {side} pixels a side", f"{width}×{height}", "Leave it out, or lower the side.")
    top, left = (height - side) // 2, (width - side) // 2
    return image[:, top : top + side, left : left + side]


def _values(clean: Tensor, damaged: Tensor, restorer: Restorer, psi: Psi) -> np.ndarray:
    """PSNR of damaged and restored, psi of both, [n, 4]; NaN where there is no restoration."""
    result = restorer.restore(damaged)
    whole = clean.expand_as(damaged)
    with torch.no_grad():
        original = psi.features(whole)
        columns = [psnr(whole, damaged), psnr(whole, result.images[:, 0].cpu())]
        columns += [psi.distance(psi.features(x), original).double() for x in (damaged, result.images[:, 0].cpu())]
    table = torch.stack(columns, 1).numpy()
    table[[reason is not None for reason in result.reasons], 1::2] = np.nan
    return table


def _gain(name: str, seen: bool, table: np.ndarray, owners: Sequence[int], resamples: int, seed: int) -> Gain:
    whole = np.asarray(np.isfinite(table).all(1))
    missing, table = int((~whole).sum()), table[whole]
    if not len(table):
        raise BadInput("a picture that was restored", f"none of kind {name}", "See the reasons: it diverges.")
    kept = [owner for owner, good in zip(owners, whole.tolist(), strict=True) if good]

    def with_interval(gains: np.ndarray) -> tuple[float, float, float]:
        ends = bootstrap_interval(
            lambda places: float(gains[places].mean()), len(gains), kept, resamples=resamples, seed=seed
        )
        return (float(gains.mean()), *ends)

    nearer, closer = table[:, 1] - table[:, 0], table[:, 2] - table[:, 3]
    means = table.mean(0)
    return Gain(
        name, seen, len(table) + missing, missing,
        (float(means[0]), float(means[1])), with_interval(nearer),
        (float(means[2]), float(means[3])), with_interval(closer),
        (float((nearer > 0).mean()), float((closer > 0).mean())),
    )  # fmt: skip
