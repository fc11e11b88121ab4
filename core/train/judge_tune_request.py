"""What the fine-tuning of the judge is told."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..data.ladder import FAMILIES, read_ladders
from ..data.rated import RatedSet
from ..errors import BadInput
from .judge_head import HeadSettings
from .judge_losses import TuneLosses
from .judge_request import check_places
from .judge_sight import PLACES

#: What may change between two pieces of one run.
_FREE = ("data", "out", "run", "cache", "minutes", "save_minutes", "device", "kept_maps")


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """One fine-tuning.

    Attributes:
        data: Rated pictures, already cut to the part that may be trained on.
        out: The file to write after the last step.
        run: Folder of state and log: the same folder goes on where a run ended.
        cache: Folder of frozen features, as of ``train judge``; its head is where this one begins.
        backbone: As for ``train judge``.
        calibrated_on: Whose ratings these are.
        place: The first trained layer: one of ``PLACES``.
        rank: Units of the head's squeeze; 0 keeps the plain head.
        kept_maps: Keep the frozen part's maps below ``cache``: crops of the grid, nothing mirrored, no frozen stage
            computed twice.
        steps: In all.
        minutes: Of this call; ``None`` for no limit.
        batch: Rated pictures of a step.
        crops: Native-scale crops of each, beside its global view.
        side: Of the random crops, px; at most 384.
        rate: Highest learning rate, of the head.
        trunk_rate: Share of it that the trunk's layers get.
        decay: AdamW's weight decay.
        drop: Share of the head's hidden units dropped.
        average: Decay of the weights' moving average.
        clip: Largest norm of a gradient.
        mates: Share of a batch that is drawn with a picture of like content beside it.
        losses: What counts.
        ladders: Folder of ladders; ``None`` for none.
        contents: Ladders of a step.
        leave_out: Families of damage that it does not learn from; they are measured all the same.
        share: Held back for validation, by content.
        per_group: Pictures per cluster of like content.
        settings: Of the head that it begins from.
        validate_every: Steps between validations.
        validate_on: Held-back pictures of a validation; at the end all of them count.
        save_minutes: Between two saved states.
        seed: Of everything drawn.
        device: cpu, cuda …
        precision: fp32 or bf16.
    """

    data: RatedSet
    out: Path
    run: Path
    cache: Path
    backbone: Path | None = None
    calibrated_on: str = "your ratings"
    place: str = "stage5"
    rank: int = 64
    kept_maps: bool = False
    steps: int = 2000
    minutes: float | None = None
    batch: int = 16
    crops: int = 2
    side: int = 256
    rate: float = 5e-4
    trunk_rate: float = 0.2
    decay: float = 0.01
    drop: float = 0.3
    average: float = 0.998
    clip: float = 5.0
    mates: float = 0.5
    losses: TuneLosses = field(default_factory=TuneLosses)
    ladders: Path | None = None
    contents: int = 4
    leave_out: tuple[str, ...] = ()
    share: float = 0.2
    per_group: int = 25
    settings: HeadSettings = field(default_factory=HeadSettings)
    validate_every: int = 250
    validate_on: int = 400
    save_minutes: float = 5.0
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        check_places(self.out, self.cache)
        check_places(self.out, self.run)
        counts = {name: getattr(self, name) for name in ("steps", "crops", "contents", "validate_every", "validate_on")}
        if self.batch < 2 or min(counts.values()) < 1 or self.rank < 0:
            got = ", ".join(
                f"{name} {value}" for name, value in {"batch": self.batch, "rank": self.rank, **counts}.items()
            )
            raise BadInput("batch ≥ 2, rank ≥ 0, the other counts ≥ 1", got, "Raise them.")
        if not 32 <= self.side <= 384 or self.place not in PLACES:
            got = f"side {self.side}, place {self.place!r}"
            raise BadInput(f"crops of 32 to 384 px, a place out of {', '.join(PLACES)}", got, "Change them.")
        shares = (self.drop, self.average, self.mates)
        if not (
            all(0.0 <= share < 1.0 for share in shares) and self.rate > 0 and self.trunk_rate >= 0 and self.clip > 0
        ):
            got = f"drop {self.drop}, average {self.average}, mates {self.mates}, rate {self.rate}"
            raise BadInput("shares from 0 to below 1 and rates above 0", got, "Change them.")
        if self.precision not in ("fp32", "bf16") or not set(self.leave_out) <= set(FAMILIES):
            got = f"{self.precision}, {', '.join(self.leave_out)}"
            raise BadInput(f"fp32 or bf16, families out of {', '.join(FAMILIES)}", got, "Change them.")
        if self.ladders is None and (self.losses.ladders or self.losses.factor):
            raise BadInput("a folder of ladders for their loss", "none", "Name one with --ladders.")

    def told(self) -> dict[str, object]:
        """Everything that changes the outcome, as plain types."""
        plain: dict[str, object] = {}
        for name in self.__dataclass_fields__:
            if name not in _FREE:
                value = getattr(self, name)
                plain[name] = asdict(value) if name in ("losses", "settings") else value
        for name in ("backbone", "ladders"):
            path = getattr(self, name)
            plain[name] = None if path is None else path.name
        return json.loads(json.dumps(plain))

    def digest(self) -> str:
        """Of :meth:`told`, the pictures' names and ratings, and the ladders: a saved state belongs to one of these."""
        images = [[image.path.name, image.mos] for image in self.data.images]
        ladders = [] if self.ladders is None else read_ladders(self.ladders)
        rungs = [[rung.path.name, rung.group] for ladder in ladders for rung in ladder]
        return hashlib.sha256(json.dumps([self.told(), self.kept_maps, images, rungs]).encode()).hexdigest()[:16]
