"""The families of diffusion models, in the order in which they are tried.

To add one: a file with its row, a line in :data:`REGISTRY`, a test file.
"""

from __future__ import annotations

from typing import cast

from ...errors import UnsupportedFamily
from ..contracts import Family, Prediction, Tap
from .critic_ldm import CRITIC_LDM
from .flux import FLUX
from .flux2 import FLUX2
from .lumina2 import LUMINA2
from .qwen_image import QWEN_IMAGE
from .row import FamilyRow, ModelFacts
from .sd3 import SD3
from .sd15 import SD15
from .sd20 import SD20, SD20_V
from .sdxl import SDXL
from .wan21 import WAN21
from .zimage import ZIMAGE

__all__ = ["REGISTRY", "FamilyRow", "ModelFacts", "find_row", "known_families", "recognise"]

REGISTRY: tuple[FamilyRow, ...] = (
    SD15,
    SD20,
    SD20_V,
    SDXL,
    SD3,
    FLUX,
    FLUX2,
    LUMINA2,
    ZIMAGE,
    QWEN_IMAGE,
    WAN21,
    CRITIC_LDM,
)


def known_families() -> tuple[str, ...]:
    """The names of all families, each once, in registry order."""
    return tuple(dict.fromkeys(row.name for row in REGISTRY))


def find_row(facts: ModelFacts) -> FamilyRow:
    """The first row that takes the model.

    Raises:
        UnsupportedFamily: none does.
    """
    for row in REGISTRY:
        if row.takes(facts):
            return row
    raise UnsupportedFamily(
        f"a diffusion model of a known family ({', '.join(known_families())})",
        f"{facts.config} with {facts.in_channels} input channels and {facts.prediction} prediction",
        "Load another checkpoint for scoring, or use a scorer that needs only images, such as the Quality Judge.",
    )


def recognise(facts: ModelFacts, taps: tuple[Tap, ...] = ()) -> Family:
    """The family of a model.

    Raises:
        UnsupportedFamily: the model is of none.
    """
    return find_row(facts).family(cast("Prediction", facts.prediction), taps)
