"""probe: scores of finished samplings, from the forwards that sampling made anyway. Ours; no paper.

A probe on the loaded model keeps pooled features of a few noise levels; a head that was fitted to finished runs turns
them into a score. Nothing is encoded, denoised or decoded. What the score means is what the head was fitted to:
people's ratings of earlier runs, or another scorer's scores of them, which it then estimates and no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ..errors import BadInput
from ..heads.check import Wanted, check_head
from ..heads.layout import Layout
from ..records import Score, ScoreBatch, ScoreSpec
from ..taps.finished_runs import COND, Finished, ProbePlan

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Family
    from ..backbone.fingerprint import Fingerprint
    from ..heads.head import Head

METHOD = "probe"
REDUCERS = ("mean", "std")
PROMPT = "the sampling's own"
SIZE_POLICY = "as sampled: every tap pooled over its whole grid"
BLIND_TO = "whatever the scores or ratings that the head was fitted to did not see; what the VAE does to the latent"


class ProbeLike(Protocol):
    """What a host's probe is to this scorer."""

    @property
    def family(self) -> Family:
        """The model's family."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """A sketch of its weights."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """Its patches."""
        ...

    @property
    def plan(self) -> ProbePlan:
        """Taps and noise levels."""
        ...

    def find(self, latents: Tensor) -> list[Finished | str]:
        """The sampling behind each latent, or why none is known."""
        ...


def layout_of(plan: ProbePlan, branches: Sequence[str] = (COND,)) -> Layout:
    """Where which feature lies in :meth:`~..taps.finished_runs.Finished.features`; the branch is a slot's view."""
    return Layout.of(
        (tap.name, level, reducer, branch, tap.channels)
        for level in range(len(plan.sigmas))
        for branch in branches
        for tap in plan.taps
        for reducer in REDUCERS
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What a probe knows of a batch of latents.

    Attributes:
        features: [D] of each latent, or why there are none.
        prompts: A digest of each latent's prompt; empty where it is not known.
        runs: The number of each latent's sampling; 0 where it is not known.
        sigmas: The noise levels that were read.
    """

    features: tuple[Tensor | str, ...]
    prompts: tuple[str, ...]
    runs: tuple[int, ...]
    sigmas: tuple[tuple[float, ...], ...]


def look_up(probe: ProbeLike, latents: Tensor, branches: Sequence[str] = (COND,)) -> Known:
    """The features of latents [N, …] as a sampler gave them.

    Raises:
        BadInput: no latents.
    """
    if not len(latents):
        raise BadInput("at least one latent", "none", "Connect the sampler's LATENT output.")
    found = probe.find(latents)
    features, prompts, runs, sigmas = [], [], [], []
    for one in found:
        known = not isinstance(one, str)
        features.append(_features(one, probe.plan, branches) if known else one)
        prompts.append(one.run.text if known else "")
        runs.append(one.run.number if known else 0)
        sigmas.append(tuple(one.run.used[level] for level in sorted(one.run.used)) if known else ())
    return Known(tuple(features), tuple(prompts), tuple(runs), tuple(sigmas))


def _features(one: Finished, plan: ProbePlan, branches: Sequence[str]) -> Tensor | str:
    values = one.features(plan, branches)
    if isinstance(values, str) or bool(values.isfinite().all()):
        return values
    return "the model's features held NaN or infinite values (half precision overflowed: try bf16 or fp32)"


class ProbeScorer:
    """A head on a probe's features.

    Args:
        probe: The probe on the model that sampled.
        head: A head of kind ``probe``.
        override: Use a head of another checkpoint all the same; its scores then only rank.

    Raises:
        MismatchedBackbone: the head is of another kind, family, checkpoint, tap set or noise levels; names which.
    """

    def __init__(self, probe: ProbeLike, head: Head, *, override: bool = False) -> None:
        wanted = Wanted(method=METHOD, sigmas=probe.plan.sigmas, taps=[tap.name for tap in probe.plan.taps])
        # The check reads the model's family, fingerprint and identity, which a probe tells as a backbone does.
        self._fit = check_head(head, probe, METHOD, wanted, override=override)  # type: ignore[arg-type]
        self._probe, self._head, self._branches = probe, head, head.layout.views
        if layout_of(probe.plan, self._branches) != head.layout:
            raise BadInput(
                "a head whose features lie as the probe gives them", "another order or channels", "Fit it again."
            )

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean: what the head was fitted to."""
        meta = self._head.meta
        return ScoreSpec(
            name=METHOD,
            direction=meta.settings.get("direction", "higher"),
            scale=meta.scale,
            calibrated_on=meta.calibrated_on if self._fit.calibrated else None,
            centre=meta.centre,
            spread=meta.spread,
            needs=("model", "head"),
            size_policy=meta.size_policy,
            blind_to=BLIND_TO,
            backbone=self._probe.fingerprint.to_text(),
            settings={
                "fitted_to": meta.settings.get("fitted_to"),
                "training_set": meta.training_set,
                "pictures": meta.pictures,
                "validation": dict(meta.validation),
                "sigmas": list(meta.sigmas),
                "branches": list(self._branches),
                "identity": dict(self._probe.identity),
            },
        )

    def score(self, latents: Tensor) -> ScoreBatch:
        """Latents [N, …] as a sampler gave them → their scores, in order; what is not known gets a reason."""
        known = look_up(self._probe, latents, self._branches)
        scores = []
        for place, values in enumerate(known.features):
            about: dict[str, Any] = {"sigmas": list(known.sigmas[place]), "run": known.runs[place]}
            if isinstance(values, str):
                scores.append(Score(None, place, reason=values))
                continue
            found = self._head.predict(values[None])
            about["spread"] = float(found.spread[0])
            if self._fit.warnings:
                about["warnings"] = list(self._fit.warnings)
            scores.append(Score.of(float(found.value[0]), place, attributes=about))
        return ScoreBatch(self.spec, tuple(scores))


def stacked(known: Known) -> tuple[Tensor, list[int]]:
    """The features that there are [M, D], and their places."""
    places = [place for place, values in enumerate(known.features) if not isinstance(values, str)]
    rows = [values for values in known.features if not isinstance(values, str)]
    return (torch.stack(rows) if rows else torch.zeros(0, 0)), places
