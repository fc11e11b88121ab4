"""A DiffV2IQA head: its two branches, how a picture is read, and which restorer made what it was trained on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ..backbone.fingerprint import Fingerprint
from ..errors import BadInput, MismatchedBackbone
from ..heads.check import Fit
from ..heads.head import HeadMeta
from ..nets.diff_v2 import DiffShape, DiffV2Nets, VcgShape, window_of
from ..nets.diff_v2_vit import VisionTransformer
from .diff_v2_iqa_settings import DiffSettings

if TYPE_CHECKING:
    from ..restoration.contract import Restorer

_log = logging.getLogger(__name__)
_RESTORER, _EYES = "restorer.", "eyes."
#: What a restorer says of itself that moves scores too little to lose their scale.
_HARMLESS = ("precision", "bits")
#: What must agree where the loaded model restores; the rest (LoRA, VAE, text encoder) is worth a warning.
_OF_SHARED = ("name", "restorer", "weights", "settings", "psi")


@dataclass(frozen=True, slots=True)
class DiffHead:
    """A head.

    Attributes:
        meta: What its file says of it.
        nets: VCG, VDA and λ.
        settings: How a picture is read.
        vit: A ViT of its own, trained with it; ``None`` where backbones come from elsewhere.
    """

    meta: HeadMeta
    nets: DiffV2Nets
    settings: DiffSettings
    vit: VisionTransformer | None = None

    def digest(self) -> str:
        """16 hex digits that tell heads apart."""
        found = hashlib.sha256()
        for module in (self.nets, self.vit):
            for name, value in sorted({} if module is None else module.state_dict().items()):
                found.update(name.encode())
                found.update(value.detach().cpu().float().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    def check_eyes(self, identity: Mapping[str, str]) -> None:
        """Whether these are the backbones that it was trained on.

        Raises:
            MismatchedBackbone: another one's weights.
        """
        for name, now in identity.items():
            before = self.meta.identity.get(_EYES + name, now)
            if before != now:
                remedy = "Name the file of the weights that it was trained on."
                raise MismatchedBackbone(f"a head trained on the {name} {now}", f"one on {before}", remedy)

    def check_restorer(self, restorer: Restorer, *, override: bool = False) -> Fit:
        """Whether the head may be used with this restorer.

        Raises:
            MismatchedBackbone: another restorer, or one with other settings, and no override.
        """
        before = {
            name.removeprefix(_RESTORER): told
            for name, told in self.meta.identity.items()
            if name.startswith(_RESTORER) and name.removeprefix(_RESTORER) not in _HARMLESS
        }
        now = {"name": restorer.name, **restorer.identity}
        aside = {name for name in before if restorer.name == "shared" and name not in _OF_SHARED}
        differs = [
            name for name, told in before.items() if name not in aside and not _same(told, now.get(name, "none"))
        ]
        warnings = []
        for name in differs[:1]:
            was, got = before[name], now.get(name, "none")
            if not override:
                raise MismatchedBackbone(
                    f"a restorer whose {name} is {was[:60]}, as in the head's training", got[:60],
                    "Connect that restorer, or allow another one: scores then only rank.",
                )  # fmt: skip
            warnings.append(f"another restorer than at the head's training ({name}): its scores rank, without scale")
        calibrated = self.meta.calibrated_on is not None and not warnings
        changed = [name for name in sorted(aside & set(now)) if not _same(before[name], now[name])]
        warnings += [f"the model's {name.replace('_', ' ')} is not that of the head's training" for name in changed]
        for warning in warnings:
            _log.warning("%s", warning)
        return Fit(calibrated, tuple(warnings))


def identity_of(restorer: Restorer, eyes: Mapping[str, str]) -> dict[str, str]:
    """What a head's file keeps of its restorer and backbones."""
    told = {"name": restorer.name, **{name: str(value) for name, value in restorer.identity.items()}}
    return {_RESTORER + name: value for name, value in told.items()} | {
        _EYES + name: value for name, value in eyes.items()
    }


def fingerprint_of(restorer: Restorer) -> Fingerprint | None:
    """The model's that restores; ``None`` for a restorer of its own."""
    return Fingerprint.from_text(restorer.identity["weights"]) if restorer.name == "shared" else None


def _same(before: str, now: str) -> bool:
    """Equal, or sketches of the same weights."""
    if before == now:
        return True
    try:
        return Fingerprint.from_text(before).matches(Fingerprint.from_text(now))
    except ValueError:
        return False


def fitting_shape(settings: DiffSettings, shape: DiffShape | None = None) -> DiffShape:
    """A shape whose features are those of the settings; the published one for ViT-B and ResNet50, else a narrow one."""
    if shape is None:
        published = settings.vit is not None and settings.vit.width == VcgShape().maps[0]
        shape = DiffShape.published() if published else DiffShape.narrow(settings.maps, settings.features)
    window = shape.vcg.window if settings.grid % shape.vcg.window == 0 else window_of(settings.grid)
    vcg = replace(shape.vcg, maps=settings.maps, grid=settings.grid, window=window)
    return replace(shape, vcg=vcg, vda=replace(shape.vda, features=settings.features))


def untrained(
    settings: DiffSettings,
    shape: DiffShape | None = None,
    *,
    restorer: Restorer | None = None,
    eyes: Mapping[str, str] | None = None,
    seed: int = 0,
    own_vit: bool = False,
) -> DiffHead:
    """A head with random weights.

    Args:
        settings: How pictures are read.
        shape: Of the networks; :func:`fitting_shape` makes its features fit.
        restorer: Which it is for.
        eyes: The backbones' identity.
        seed: Of the weights.
        own_vit: Give it a ViT of its own.
    """
    if own_vit and settings.vit is None:
        raise BadInput("sizes of a ViT for a head with one of its own", "none", "Set patches to vit.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nets = DiffV2Nets(fitting_shape(settings, shape))
        vit = VisionTransformer(settings.vit) if own_vit else None
    identity = {} if restorer is None else identity_of(restorer, eyes or {})
    sketch = None if restorer is None else fingerprint_of(restorer)
    meta = HeadMeta(
        method="diff_v2_iqa",
        kind="restored",
        family="" if sketch is None else sketch.family,
        fingerprint="" if sketch is None else sketch.to_text(),
        sigmas=(),
        prompt="",
        size_policy=settings.size_policy(),
        training_set="none",
        pictures=0,
        settings=settings.to_dict(),
        identity=identity,
    )
    modules = [nets] if vit is None else [nets, vit]
    for module in modules:
        module.eval().requires_grad_(False)
    return DiffHead(meta, nets, settings, vit)
