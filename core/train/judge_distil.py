"""The judge taught by another scorer: what its head is fitted to, and whether that pays on the validation part.

After DP-IQA's distillation (2024, arXiv 2405.19996), whose student learns truth and teacher's map together. Here the
judge's head learns ratings where there are any, the teacher's scores everywhere, and the teacher's map through a layer
that is dropped afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..benchmark.agreement import Agreement, agreement
from ..benchmark.significance import compare
from ..data.distortions import KINDS, distort
from ..errors import BadInput
from ..files import whole_file
from ..images import load_image, to_picture
from ..nets.judge import JudgeHead
from .features import content_of
from .judge_head import HeadSettings, begun, merge, start_at_the_mean

if TYPE_CHECKING:
    from .teachers import Teacher

_SEVERITIES = (1, 3, 5)


@dataclass(frozen=True, slots=True)
class Distillation:
    """Who teaches, on what, and how much it counts.

    Attributes:
        teachers: One, or an ensemble whose scores are averaged on the ratings' scale.
        unlabelled: Pictures without ratings.
        ladders: Damage each of those as well: every kind at three severities, or as many kinds as this.
        score_weight: Of the teacher's score beside a rating; unrated pictures have the teacher's alone.
        map_weight: Of the teacher's map; 0 for none.
    """

    teachers: tuple[Teacher, ...]
    unlabelled: tuple[Path, ...] = ()
    ladders: int = 0
    score_weight: float = 0.5
    map_weight: float = 0.1

    def __post_init__(self) -> None:
        if not self.teachers:
            raise BadInput("at least one teacher", "none", "Name one with --teacher.")
        if not (0.0 <= self.score_weight <= 1.0 and self.map_weight >= 0.0 and 0 <= self.ladders <= len(KINDS)):
            got = f"{self.score_weight}, {self.map_weight}, {self.ladders}"
            raise BadInput(f"a score weight to 1, a map weight from 0, 0 to {len(KINDS)} kinds", got, "Change them.")


@dataclass(frozen=True, slots=True)
class Lessons:
    """Teachers' words on rated and unrated pictures.

    Attributes:
        paths: The unrated pictures, damaged ones included.
        described: What the head reads of them, [m, 2 D].
        scores: [n + m] on the ratings' scale, rated pictures first; NaN where no teacher gave any.
        maps: [n + m, values], standardised; no columns without maps.
    """

    paths: tuple[Path, ...]
    described: Tensor
    scores: Tensor
    maps: Tensor


@dataclass(frozen=True, slots=True)
class Gain:
    """What the teacher brought on the validation part.

    Attributes:
        alone: Agreement of the judge without a teacher.
        taught: Agreement of the judge with the teacher.
        difference: Of their SRCC, taught less alone.
        low, high: 95 % interval of the difference, over contents.
    """

    alone: Agreement
    taught: Agreement
    difference: float
    low: float
    high: float

    @property
    def pays(self) -> bool:
        """Whether the whole interval lies above 0: then the taught head is written, else the plain one."""
        return self.low > 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {**asdict(self), "pays": self.pays}


def pictures(distil: Distillation, folder: Path) -> tuple[Path, ...]:
    """The unrated pictures, with their damaged forms written into the folder once.

    Raises:
        UnreadableFile: a picture cannot be read.
    """
    found = list(distil.unlabelled)
    for path in distil.unlabelled if distil.ladders else ():
        name, image = content_of(path)[:24], None
        for kind in KINDS[: distil.ladders]:
            for severity in _SEVERITIES:
                made = folder / f"{name}-{kind}-{severity}.png"
                if not made.exists():
                    image = load_image(path) if image is None else image
                    with whole_file(made) as temporary:
                        to_picture(distort(image, kind, severity)).save(temporary)
                found.append(made)
    return tuple(found)


def fit_taught(
    described: Tensor,
    mos: Tensor,
    lessons: Lessons,
    rows: Sequence[int],
    distil: Distillation,
    settings: HeadSettings,
    tick: Callable[[int, int], None] | None = None,
) -> JudgeHead:
    """Rated pictures ``rows`` and all unrated ones → a head.

    Raises:
        BadInput: too few pictures, or ratings that are all alike.
    """
    kept, count = list(rows), len(described)
    head = begun(described[kept], mos[kept], settings)
    everything = [*kept, *range(count, count + len(lessons.described))]
    taught = lessons.scores[everything]
    rated = torch.cat([mos[kept], torch.full((len(lessons.described),), float("nan"))])
    seen = torch.isfinite(taught) | torch.isfinite(rated)
    inputs = torch.cat([described[kept], lessons.described])[seen]
    material = _Material(
        head.standardised(inputs),
        rated[seen],
        taught[seen],
        lessons.maps[everything][seen],
        distil,
        float(mos[kept].std()),
    )
    members = []
    for number in range(settings.members):
        members.append(_fit_member(material, settings, settings.seed + number))
        if tick is not None:
            tick(number + 1, settings.members)
    merge(head, members)
    return head.eval().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class _Material:
    inputs: Tensor
    rated: Tensor
    taught: Tensor
    maps: Tensor
    distil: Distillation
    deviation: float

    def loss(self, score: Tensor, drawn: Tensor | None, places: Tensor) -> Tensor:
        """Rating and teacher's score, each where there is one, and the map."""
        weight = self.distil.score_weight
        rated, taught = self.rated[places], self.taught[places]
        is_rated, is_taught = rated.isfinite(), taught.isfinite()
        share = torch.where(is_rated & is_taught, weight, torch.where(is_taught, 1.0, 0.0))
        parts = torch.where(is_rated, (1.0 - share) * self._apart(score, rated.nan_to_num()), 0.0)
        parts = parts + torch.where(is_taught, share * self._apart(score, taught.nan_to_num()), 0.0)
        found = parts.mean()
        if drawn is not None:
            found = found + self.distil.map_weight * F.mse_loss(drawn, self.maps[places])
        return found

    def _apart(self, score: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(score / self.deviation, target / self.deviation, beta=0.5, reduction="none")


def _fit_member(material: _Material, settings: HeadSettings, seed: int) -> tuple[nn.Linear, nn.Linear]:
    inputs, with_maps = material.inputs, bool(material.maps.shape[1]) and material.distil.map_weight > 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden, out = nn.Linear(inputs.shape[1], settings.width), nn.Linear(settings.width, 1)
        start_at_the_mean(out, torch.where(material.rated.isfinite(), material.rated, material.taught))
        paint = nn.Linear(settings.width, material.maps.shape[1]) if with_maps else None
        weights = [*hidden.parameters(), *out.parameters(), *(paint.parameters() if paint else ())]
        optimiser = torch.optim.AdamW(weights, lr=settings.rate, weight_decay=settings.decay)
        batch = min(settings.batch, len(inputs))
        rounds = len(inputs) // batch
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, settings.rate, total_steps=settings.epochs * rounds, pct_start=0.1
        )
        for _ in range(settings.epochs):
            for places in torch.randperm(len(inputs))[: rounds * batch].view(rounds, batch):
                inner = F.gelu(hidden(F.dropout(inputs[places], settings.drop_input)))
                score = 100.0 * torch.sigmoid(out(F.dropout(inner, settings.drop_hidden))[:, 0])
                loss = material.loss(score, None if paint is None else paint(inner), places)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                cycle.step()
    return hidden, out


def gain(alone: JudgeHead, taught: JudgeHead, described: Tensor, mos: Tensor, groups: Sequence[int]) -> Gain:
    """Both heads on the validation part."""
    with torch.inference_mode():
        plain, learned = alone(described).tolist(), taught(described).tolist()
    truth = mos.tolist()
    found = compare(learned, plain, truth, groups)
    a, b = (agreement(scores, truth) for scores in (plain, learned))
    return Gain(a, b, found.difference, found.low, found.high)
