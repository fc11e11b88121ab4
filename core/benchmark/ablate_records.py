"""What an ablation is asked for, and what it found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..fitting.pictures import Pictures
from ..methods.hyperfeature_options import HyperfeatureOptions
from .ablate_cells import FREE, GROUPS


@dataclass(frozen=True, slots=True)
class AblationRequest:
    """What to compare, on what.

    Attributes:
        pictures: Rated ones of a training split, with content groups.
        validation: How many to hold back for comparison, about.
        base: The setting to start from.
        groups: Groups of cells out of :data:`~.ablate_cells.GROUPS`.
        draws: Noise draws behind the spread, with ``noise`` among the groups.
        cache: Folder for features; a stopped run goes on from there.
        seed: Of the split.
        resamples: Bootstrap samples behind the intervals.
    """

    pictures: Pictures
    validation: int
    base: HyperfeatureOptions
    groups: tuple[str, ...] = FREE
    draws: int = 3
    cache: Path | None = None
    seed: int = 0
    resamples: int = 1000

    def __post_init__(self) -> None:
        if self.pictures.ratings is None:
            raise BadInput("rated pictures", "pictures without ratings", "Name a rated set.")
        if not 3 <= self.validation < len(self.pictures):
            raise BadInput(
                f"3 to {len(self.pictures) - 1} validation pictures",
                str(self.validation),
                "Take fewer, or more in all.",
            )
        unknown = [name for name in self.groups if name not in GROUPS]
        if unknown or self.draws < 2:
            got = f"{', '.join(unknown)}; {self.draws} draws"
            raise BadInput(f"groups out of {', '.join(GROUPS)}, and at least 2 draws", got, "Leave them out.")


@dataclass(frozen=True, slots=True)
class AblationRow:
    """One cell on the validation pictures.

    Attributes:
        group: What is varied.
        cell: To what.
        train: Pictures that its head was fitted to.
        n: Validation pictures that it scored.
        srcc: Agreement there, with its 95 % bootstrap interval over contents.
        srcc_low: Lower end.
        srcc_high: Upper end.
        plcc: Pearson's correlation.
        difference: SRCC less the base's, on the same pictures.
        difference_low: Lower end of its 95 % interval, paired.
        difference_high: Upper end.
        p: Two-sided bootstrap p value of the difference; not adjusted for the number of cells.
        features: Features that the head reads.
        seconds: Time per picture and pass; ``None`` where features came from the cache or another cell.
        chosen: What cross-validation chose inside the training pictures.
    """

    group: str
    cell: str
    train: int
    n: int
    srcc: float
    srcc_low: float
    srcc_high: float
    plcc: float
    difference: float
    difference_low: float
    difference_high: float
    p: float
    features: int
    seconds: float | None
    chosen: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ablation:
    """Every row, and the spread over noise draws (in standard deviations of the scores over pictures) when asked."""

    rows: list[AblationRow]
    noise: dict[str, Any] | None = None
    failed: dict[str, str] = field(default_factory=dict)
