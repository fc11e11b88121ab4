"""Does a head belong to this model and these settings? One error that names what differs."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..backbone.fingerprint import Fingerprint
from ..backbone.text_sketch import AS_LOADED
from ..backbone.vae_sketch import VAE_KEY
from ..errors import MismatchedBackbone
from .head import HeadMeta, Kind
from .layout import Layout

if TYPE_CHECKING:
    from ..backbone.contracts import Backbone

_log = logging.getLogger(__name__)
#: Noise levels closer than this share are the same.
_SAME_LEVEL = 1e-3
#: Parts whose sketches are compared where both sides have them: ComfyUI's, and those of a diffusers pipeline.
_PARTS = {
    "vae": "VAE",
    "clip": "CLIP",
    "diffusers_vae": "VAE",
    "diffusers_text_encoder": "text encoder",
    "diffusers_text_encoder_2": "second text encoder",
    "diffusers_text_encoder_3": "third text encoder",
}
#: What all hosts know of CLIP's encoders and the VAE, for a head that was fitted in another host.
_SHARED = {
    "text_l": "CLIP-L text encoder",
    "text_g": "OpenCLIP-G text encoder",
    "text_h": "OpenCLIP-H text encoder",
    VAE_KEY: "VAE",
}
_TEXTS = ("clip", "diffusers_text_encoder")


class AnyHead(Protocol):
    """Whatever has a head's facts: one on features, or GenzIQA's prompts."""

    @property
    def meta(self) -> HeadMeta:
        """What its file says of it."""
        ...

    @property
    def layout(self) -> Layout:
        """Taps and reducers that it reads."""
        ...


@dataclass(frozen=True, slots=True)
class Fit:
    """A head that may be used.

    Attributes:
        calibrated: Whether its scale still means something on this model.
        warnings: What the user should know.
    """

    calibrated: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller will compute; ``None`` where the caller goes by the head.

    Attributes:
        method: Registry name of the scorer.
        taps: Names.
        sigmas: Noise levels, highest first.
        reducers: Names.
        prompt: The denoiser's text.
        size_policy: How a picture becomes network input.
    """

    method: str | None = None
    taps: Sequence[str] | None = None
    sigmas: Sequence[float] | None = None
    reducers: Sequence[str] | None = None
    prompt: str | None = None
    size_policy: str | None = None


def check_head(
    head: AnyHead, backbone: Backbone, kind: Kind, wanted: Wanted | None = None, *, override: bool = False
) -> Fit:
    """Whether a head fits the model, and with what reservations. Warnings are logged too.

    Args:
        head: The head.
        backbone: The loaded model.
        kind: How the caller's features come about.
        wanted: What else the caller computes.
        override: Use a head of another checkpoint, prompt or image-size policy all the same; scores then count as
            uncalibrated. Another family, kind, tap, noise level or reducer is refused all the same.

    Raises:
        MismatchedBackbone: names the first field that differs.
    """
    wanted = wanted or Wanted()
    for field, expected, got in _hard(head, backbone, kind, wanted):
        raise MismatchedBackbone(
            f"a head whose {field} is {got}", f"{field} {expected}", "Fit a head on this model with these settings."
        )
    warnings = []
    for field, expected, got in _soft(head, backbone, wanted):
        if not override:
            raise MismatchedBackbone(
                f"a head whose {field} is that of {got}",
                f"{field} of {expected}",
                "Fit a head on this model, or allow another model: scores then only rank.",
            )
        warnings.append(f"the head's {field} is that of {expected}, not of {got}: its scores rank, without a scale")
    calibrated = not warnings
    warnings += _reservations(head, backbone)
    for warning in warnings:
        _log.warning("%s", warning)
    return Fit(calibrated and head.meta.calibrated_on is not None, tuple(warnings))


def _hard(head: AnyHead, backbone: Backbone, kind: Kind, wanted: Wanted) -> Iterator[tuple[str, str, str]]:
    """(field, the head's, the caller's) that no override helps against."""
    meta, layout = head.meta, head.layout
    if wanted.method is not None and meta.method != wanted.method:
        yield "method", meta.method, wanted.method
    if meta.kind != kind:
        yield "kind", meta.kind, kind
    if meta.family != backbone.family.name:
        yield "family", meta.family, backbone.family.name
    known = [tap.name for tap in backbone.family.taps]
    missing = [name for name in layout.taps if name not in known]
    if missing:
        yield "taps", ", ".join(missing), f"out of {', '.join(known)}"
    if wanted.taps is not None and set(layout.taps) != set(wanted.taps):
        yield "taps", ", ".join(layout.taps), ", ".join(wanted.taps)
    if wanted.sigmas is not None and not _same_levels(meta.sigmas, wanted.sigmas):
        yield "sigmas", _levels(meta.sigmas), _levels(wanted.sigmas)
    if wanted.reducers is not None and set(layout.reducers) != set(wanted.reducers):
        yield "reducers", ", ".join(layout.reducers), ", ".join(wanted.reducers)


def _soft(head: AnyHead, backbone: Backbone, wanted: Wanted) -> Iterator[tuple[str, str, str]]:
    """(field, the head's, the caller's) that an override allows."""
    meta = head.meta
    if not Fingerprint.from_text(meta.fingerprint).matches(backbone.fingerprint):
        yield "fingerprint", f"another {meta.family} checkpoint", "the loaded model"
    if wanted.prompt is not None and meta.prompt != wanted.prompt:
        yield "prompt", repr(meta.prompt), repr(wanted.prompt)
    if wanted.size_policy is not None and meta.size_policy != wanted.size_policy:
        yield "image-size policy", repr(meta.size_policy), repr(wanted.size_policy)


def _reservations(head: AnyHead, backbone: Backbone) -> list[str]:
    """What does not change the scale's meaning enough to refuse."""
    found = []
    if backbone.fingerprint.patched and not Fingerprint.from_text(head.meta.fingerprint).patched:
        found.append("LoRA or other patches lie over the model's weights; the head was fitted without them")
    elif _other(head.meta.identity, backbone.identity, "model"):
        found.append("LoRA and other patches on the model are not those that the head was fitted with")
    if _another_set_up(head.meta.identity, backbone.identity):
        found.append("the CLIP layer, or what patches CLIP, is not what the head was fitted with")
    same_host = any(part in head.meta.identity and part in backbone.identity for part in _TEXTS)
    for part, name in (_PARTS if same_host else _PARTS | _SHARED).items():
        if _differs(head.meta.identity, backbone.identity, part):
            found.append(f"the {name} is not the one that the head was fitted with")
    return found


def _other(before: Mapping[str, str], now: Mapping[str, str], part: str) -> bool:
    return part in before and part in now and before[part] != now[part]


def _another_set_up(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether CLIP stops at another layer or is patched otherwise; a head that does not tell was fitted as loaded."""
    if "clip_set_up" in before and "clip_set_up" in now:
        return before["clip_set_up"] != now["clip_set_up"]
    return any(part in now and before.get(part, usual) != now[part] for part, usual in AS_LOADED.items())


def _differs(before: Mapping[str, str], now: Mapping[str, str], part: str) -> bool:
    if not _other(before, now, part):
        return False
    try:
        return not Fingerprint.from_text(before[part]).matches(Fingerprint.from_text(now[part]))
    except ValueError:
        return True


def _same_levels(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and all(math.isclose(x, y, rel_tol=_SAME_LEVEL) for x, y in zip(a, b, strict=True))


def _levels(sigmas: Sequence[float]) -> str:
    return ", ".join(f"{sigma:.3g}" for sigma in sigmas)
