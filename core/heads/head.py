"""A head: features of an image → its score, and how far that may be off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ..errors import BadInput
from .layout import Layout
from .link import Link
from .ridge import Ridge
from .scaling import Scaler
from .spread import spreads

#: How the features came about; heads of different kinds are not interchangeable.
Kind = Literal["guided_path", "single_level", "probe", "prompts", "maps", "restored"]
KINDS: tuple[Kind, ...] = ("guided_path", "single_level", "probe", "prompts", "maps", "restored")


class Regressor(Protocol):
    """Scaled features → raw values. One of :class:`~.ridge.Ridge`, :class:`~.kernel.Kernel`, :class:`~.mlp.Mlp`."""

    @property
    def kind(self) -> str:
        """Its name in a file."""
        ...

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [N, D] → values [N] and doubts [N] ≥ 0 (0: as sure as on the training pictures)."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        ...


@dataclass(frozen=True, slots=True)
class HeadMeta:
    """What a head's file says of it.

    Attributes:
        method: Registry name of the scorer that it belongs to.
        kind: How its features came about.
        family: Family of the diffusion model.
        fingerprint: The model's :class:`~..backbone.fingerprint.Fingerprint` as text.
        sigmas: Noise levels, highest first.
        prompt: The text that the denoiser was given.
        size_policy: How a picture becomes network input.
        training_set: Name of the pictures that it was fitted on.
        pictures: How many.
        calibrated_on: Whose ratings the scale was fitted to ("photographs", "your ratings"); ``None``: it ranks only.
        scale: Ends of the scale; ``None`` for an open one.
        centre: Mean score over the training pictures.
        spread: Standard deviation of those scores.
        validation: SRCC, PLCC and the like on held-out pictures, with intervals. Of a head that was fitted without
            ratings: only how it ranks known damage.
        settings: Everything else that the scorer needs to compute the same features: guidance, ψ, seeds, outliers.
        identity: The host's words on text encoder and VAE; another one is worth a warning.
    """

    method: str
    kind: Kind
    family: str
    fingerprint: str
    sigmas: tuple[float, ...]
    prompt: str
    size_policy: str
    training_set: str
    pictures: int
    calibrated_on: str | None = None
    scale: tuple[float, float] | None = None
    centre: float = 0.0
    spread: float = 1.0
    validation: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"a kind of head out of {', '.join(KINDS)}", repr(self.kind), "Use one of these.")
        if self.calibrated_on is not None and self.scale is None:
            raise BadInput("a scale for a calibrated head", "none", "Give the lowest and highest score.")


@dataclass(frozen=True, slots=True)
class Prediction:
    """Scores [N] and their spreads [N]: about 68 % of ratings lie within one spread of the score."""

    value: Tensor
    spread: Tensor


@dataclass(frozen=True, slots=True)
class Head:
    """Scaler, regressor and link, with the layout of the features that they take.

    Attributes:
        layout: Which feature is which.
        meta: What is known of it.
        scaler: Brings features to one scale.
        regressor: Scaled features → raw values.
        link: Raw values → scores.
        error: Size of errors on held-out pictures, in units of the score; 0 where nobody's ratings were known.
    """

    layout: Layout
    meta: HeadMeta
    scaler: Scaler
    regressor: Regressor
    link: Link = field(default_factory=Link)
    error: float = 0.0

    def predict(self, features: Tensor) -> Prediction:
        """Features [N, D] → scores and spreads, fp64 on the CPU. Rows do not depend on each other.

        Raises:
            BadInput: another number of features than the layout has.
        """
        raw, doubts = self.regressor(self._scaled(features))
        return Prediction(self.link(raw), spreads(self.error, doubts))

    def raw(self, features: Tensor) -> Tensor:
        """Features [N, D] → values before the link [N]."""
        return self.regressor(self._scaled(features))[0]

    def linear(self) -> tuple[Tensor, float] | None:
        """(weights [D], intercept) on raw features before the link; ``None`` for a head that is not linear."""
        if not isinstance(self.regressor, Ridge):
            return None
        weights = self.scaler.gain * self.regressor.weights
        return weights, float(self.regressor.intercept - self.scaler.centre @ weights)

    def _scaled(self, features: Tensor) -> Tensor:
        if features.ndim != 2 or features.shape[1] != self.layout.size:
            got = f"shape {list(features.shape)}"
            raise BadInput(f"features [N, {self.layout.size}]", got, "Compute them with the head's own settings.")
        return self.scaler(features.detach().to("cpu", torch.float64))
