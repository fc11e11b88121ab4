"""Fit Head's widgets → settings of hyperfeatures."""

from __future__ import annotations

from ..core.guidance.options import GuidanceOptions, place_levels
from ..core.methods.hyperfeature_options import HyperfeatureOptions

READ = ("guided path", "single level")
#: Which terms guide, by the words of the widget.
TERMS = {"both": (True, True), "measurement": (True, False), "perceptual": (False, True), "none": (False, False)}


def hyperfeature_options(read: str, levels: int, guidance: str, psi: str, size: int) -> HyperfeatureOptions:
    """The settings that these widgets mean; strengths are the library's own."""
    usual = GuidanceOptions()
    measured, perceived = TERMS[guidance]
    return HyperfeatureOptions(
        kind="guided_path" if read == READ[0] else "single_level",
        guidance=GuidanceOptions(
            timesteps=place_levels(levels),
            zeta1=usual.zeta1 if measured else 0.0,
            zeta2=usual.zeta2 if perceived else 0.0,
        ),
        psi=psi,
        side=size or None,
    )
