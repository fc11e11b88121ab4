"""Latent Critic: the diffusion model you have already loaded becomes the judge of its own images."""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.library import Scorer
    from .core.making import EarlyAbort, Halving, best_of, reroll

WEB_DIRECTORY = "./web"
__version__ = "0.1.0"

# ComfyUI imports this file as a custom node pack; everywhere else the package is an ordinary library.
if __package__ and importlib.util.find_spec("comfy_api") is not None:
    from .nodes import comfy_entrypoint

    __all__ = [
        "WEB_DIRECTORY",
        "EarlyAbort",
        "Halving",
        "Scorer",
        "__version__",
        "best_of",
        "comfy_entrypoint",
        "reroll",
    ]
else:
    __all__ = ["WEB_DIRECTORY", "EarlyAbort", "Halving", "Scorer", "__version__", "best_of", "reroll"]


def __getattr__(name: str) -> Any:
    """What a script may use; imported on first use, because it brings torch."""
    if __package__ and name in ("EarlyAbort", "Halving", "best_of", "reroll"):
        return getattr(importlib.import_module(".core.making", __package__), name)
    if __package__ and name == "Scorer":
        return importlib.import_module(".core.library", __package__).Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
