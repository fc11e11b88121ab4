"""Fit a probe's head to finished samplings: features that sampling made, targets that somebody gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from ..errors import BadInput
from ..heads.fit import FitOptions, fit_head
from ..heads.head import HeadMeta
from ..heads.rated_runs import About, Collected, RatedRun
from ..records import ScoreSpec
from ..taps.finished_runs import COND, digest
from .probe import METHOD, PROMPT, REDUCERS, SIZE_POLICY, Known, ProbeLike, layout_of, look_up

if TYPE_CHECKING:
    from torch import Tensor

    from ..heads.head import Head

__all__ = ["LEAST", "Target", "fit_probe_head", "rows_of", "told_of"]

#: Fewest finished images that a head is fitted to.
LEAST = 20
_RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Target:
    """What the head shall tell.

    Attributes:
        name: For people: "your ratings", "judge's scores".
        digest: Tells targets apart.
        scale: Ends of its scale; ``None`` for an open one.
        direction: Which end is good.
        by_people: Whether people gave it. A scorer's scores are no ratings: a head fitted to them only ranks.
    """

    name: str
    digest: str
    scale: tuple[float, float] | None = (0.0, 100.0)
    direction: str = "higher"
    by_people: bool = False

    @classmethod
    def ratings(cls, scale: tuple[float, float] = (0.0, 100.0)) -> Target:
        """The user's own ratings."""
        return cls("your ratings", "ratings", scale, by_people=True)

    @classmethod
    def scores(cls, spec: ScoreSpec) -> Target:
        """Another scorer's scores of the decoded images."""
        return cls(f"{spec.name}'s scores", spec.digest, spec.scale, spec.direction)


def told_of(probe: ProbeLike, target: Target, branches: Sequence[str] = (COND,)) -> About:
    """What rows of this probe and target share."""
    return About(
        probe.family.name,
        probe.fingerprint.to_text(),
        probe.plan.sigmas,
        tuple(tap.name for tap in probe.plan.taps),
        tuple(branches),
        target.digest,
        target.name,
    )


def rows_of(
    probe: ProbeLike,
    latents: Tensor,
    targets: Sequence[float | None],
    session: str,
    branches: Sequence[str] = (COND,),
) -> tuple[list[RatedRun], Known]:
    """Latents as a sampler gave them, each with its target → rows to collect; places without either are left out.

    Raises:
        BadInput: not one target per latent.
    """
    if len(targets) != len(latents):
        raise BadInput(f"{len(latents)} scores, one per latent", str(len(targets)), "Score the decoded images of it.")
    known, rows = look_up(probe, latents, branches), []
    for place, (values, target) in enumerate(zip(known.features, targets, strict=True)):
        if isinstance(values, str) or target is None:
            continue
        run = f"{session} {known.runs[place]}"
        rows.append(RatedRun(digest(latents[place].float()), values, float(target), known.prompts[place], run))
    return rows, known


def fit_probe_head(
    probe: ProbeLike, target: Target, collected: Collected, name: str, branches: Sequence[str] = (COND,)
) -> tuple[Head, dict[str, Any]]:
    """A head of kind ``probe``, and what its cross-validation saw.

    Raises:
        BadInput: too few images, or targets all alike.
    """
    if len(collected.targets) < LEAST:
        raise BadInput(f"at least {LEAST} finished images", str(len(collected.targets)), "Collect more of them.")
    groups, held_out = collected.groups()
    scale = target.scale or (float(collected.targets.min()), float(collected.targets.max()))
    fitted = fit_head(
        collected.features,
        collected.targets,
        groups,
        layout_of(probe.plan, branches),
        _meta(probe, target, name, held_out),
        FitOptions(link="none" if target.scale is None else "logistic", scale=scale),
    )
    found = fitted.report
    told = {
        "n": len(collected.targets),
        **_agreement(found.held_out, collected.targets),
        "rmse": found.rmse,
        "held_out": held_out,
        "fitted_to": target.name,
        "prompts": len(set(collected.prompts)),
    }
    meta = replace(fitted.head.meta, validation=told, scale=target.scale)
    return replace(fitted.head, meta=meta), told


def _meta(probe: ProbeLike, target: Target, name: str, held_out: str) -> HeadMeta:
    return HeadMeta(
        method=METHOD,
        kind="probe",
        family=probe.family.name,
        fingerprint=probe.fingerprint.to_text(),
        sigmas=probe.plan.sigmas,
        prompt=PROMPT,
        size_policy=SIZE_POLICY,
        training_set=f"finished runs collected as {name!r}",
        pictures=0,
        calibrated_on=target.name if target.by_people and target.scale is not None else None,
        scale=target.scale,
        settings={
            "fitted_to": target.name,
            "target": target.digest,
            "direction": target.direction,
            "held_out": held_out,
            "within": probe.plan.within,
            "reducers": list(REDUCERS),
        },
        identity=dict(probe.identity),
    )


def _agreement(predicted: Tensor, targets: Tensor) -> dict[str, float]:
    """SRCC with its 95 % bootstrap interval over images, and PLCC; 0 where one side is constant."""
    x, y = predicted.double().numpy(), targets.double().numpy()
    draw = np.random.default_rng(0)
    places = draw.integers(0, len(x), (_RESAMPLES, len(x)))
    low, high = np.percentile([_correlation(rankdata(x[at]), rankdata(y[at])) for at in places], (2.5, 97.5))
    return {
        "srcc": _correlation(rankdata(x), rankdata(y)),
        "srcc_low": float(low),
        "srcc_high": float(high),
        "plcc": _correlation(x, y),
    }


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0.0 and y.std() > 0.0 else 0.0
