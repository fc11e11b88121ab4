"""What an ablation of lgdm compares: cells that differ from a base in one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import BadInput
from ..guidance.options import GuidanceOptions
from ..heads.fit import FitOptions
from ..heads.layout import Slot
from ..methods.hyperfeature_options import HyperfeatureOptions

if TYPE_CHECKING:
    from ..backbone.contracts import Tap

#: Groups of cells by what each costs: a pass over all pictures per cell, or nothing beyond the base's pass.
COSTLY = ("guidance", "psi", "outliers")
FREE = ("levels", "taps", "reducers", "views", "head")
#: ``noise`` costs a pass over the validation pictures per draw.
GROUPS = (*COSTLY, *FREE, "noise")
#: Read beside the base's own, since pooling costs next to nothing.
_MORE_REDUCERS = ("mean", "std", "logstd", "gmean3", "top10")
#: For a base without that term.
_ZETA = GuidanceOptions().zeta1


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting.

    Attributes:
        group: What is varied.
        name: To what.
        options: How features are extracted.
        keep: Which of them the head reads.
        fit: How it is fitted.
    """

    group: str
    name: str
    options: HyperfeatureOptions
    keep: Callable[[Slot], bool]
    fit: FitOptions = FitOptions()  # noqa: RUF009 (frozen)


def base_cell(base: HyperfeatureOptions) -> Cell:
    """The setting that all others are compared with."""
    return Cell("base", "base", superset(base), lambda slot: slot.reducer in base.reducers)


def superset(base: HyperfeatureOptions) -> HyperfeatureOptions:
    """The base with every reducer, so that one pass serves all cells on reducers."""
    return replace(base, reducers=tuple(dict.fromkeys((*base.reducers, *_MORE_REDUCERS))))


def cells(base: HyperfeatureOptions, groups: tuple[str, ...], taps: tuple[Tap, ...]) -> list[Cell]:
    """The base first, then every cell of these groups.

    Args:
        base: The setting to start from.
        groups: Out of :data:`GROUPS`; ``noise`` has no cells of this kind.
        taps: The model's taps that the base reads.

    Raises:
        BadInput: an unknown group.
    """
    unknown = [name for name in groups if name not in GROUPS]
    if unknown:
        raise BadInput(f"groups of cells out of {', '.join(GROUPS)}", ", ".join(unknown), "Leave them out for all.")
    makers = {
        "guidance": _guidance(base),
        "psi": _psi(base),
        "outliers": _outliers(base),
        "levels": _levels(base),
        "taps": _taps(base, taps),
        "reducers": _reducers(base),
        "views": _views(base),
        "head": _heads(base),
    }
    return [base_cell(base), *(cell for name in groups if name in makers for cell in makers[name])]


def _guided(base: HyperfeatureOptions, zeta1: float, zeta2: float) -> HyperfeatureOptions:
    found = superset(base)
    guidance = replace(base.guidance, zeta1=zeta1, zeta2=zeta2)
    return replace(found, kind="guided_path", guidance=guidance, psi=base.psi or "judge")


def _own(base: HyperfeatureOptions) -> Callable[[Slot], bool]:
    return lambda slot: slot.reducer in base.reducers


def _guidance(base: HyperfeatureOptions) -> Iterator[Cell]:
    one, two = base.guidance.zeta1 or _ZETA, base.guidance.zeta2 or _ZETA
    for name, zetas in (("off", (0.0, 0.0)), ("measurement", (one, 0.0)), ("perceptual", (0.0, two))):
        yield Cell("guidance", name, _guided(base, *zetas), _own(base))
    yield Cell("guidance", "both", _guided(base, one, two), _own(base))
    yield Cell("guidance", "no path: each level by itself", replace(superset(base), kind="single_level"), _own(base))


def _psi(base: HyperfeatureOptions) -> Iterator[Cell]:
    two = base.guidance.zeta2 or _ZETA
    for psi in ("judge", "ldm", "latent"):
        options = replace(_guided(base, base.guidance.zeta1, two), psi=psi)
        yield Cell("psi", psi, options, _own(base))


def _outliers(base: HyperfeatureOptions) -> Iterator[Cell]:
    found = superset(base)
    yield Cell("outliers", "left", replace(found, limit=None), _own(base))
    yield Cell("outliers", "limited to 3 medians", replace(found, limit=3.0), _own(base))
    yield Cell("outliers", "limited, position taken away", replace(found, limit=3.0, position=True), _own(base))


def _levels(base: HyperfeatureOptions) -> Iterator[Cell]:
    for level, t in enumerate(base.guidance.timesteps):
        yield Cell(
            "levels", f"t = {t} alone", superset(base), lambda slot, n=level: slot.level == n and _own(base)(slot)
        )


def _taps(base: HyperfeatureOptions, taps: tuple[Tap, ...]) -> Iterator[Cell]:
    for stride in sorted({tap.stride for tap in taps}):
        names = {tap.name for tap in taps if tap.stride == stride}
        words = f"stride {stride} ({', '.join(tap.name for tap in taps if tap.stride == stride)})"
        yield Cell(
            "taps", words, superset(base), lambda slot, kept=names: slot.tap in kept and slot.reducer in base.reducers
        )


def _reducers(base: HyperfeatureOptions) -> Iterator[Cell]:
    sets = [(name,) for name in superset(base).reducers] + [("mean", "logstd"), ("mean", "std", "gmean3", "top10")]
    for names in sets:
        yield Cell("reducers", " + ".join(names), superset(base), lambda slot, kept=names: slot.reducer in kept)


def _views(base: HyperfeatureOptions) -> Iterator[Cell]:
    for view in base.views if len(base.views) > 1 else ():
        words = f"{view} alone"
        yield Cell("views", words, superset(base), lambda slot, v=view: slot.view == v and _own(base)(slot))


def _heads(base: HyperfeatureOptions) -> Iterator[Cell]:
    for model in ("ridge", "kernel", "mlp"):
        yield Cell("head", model, superset(base), _own(base), FitOptions(model))
