"""From a scorer's name to a scorer that runs without ComfyUI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadInput
from ..methods import METHODS, method

if TYPE_CHECKING:
    from ..methods.contract import Scorer


def load_scorer(name: str, device: str = "auto", weights: str | Path | None = None, policy: str = "full") -> Scorer:
    """A scorer on a device; ``weights`` is a judge's file, the shipped one when ``None``; ``policy`` its views.

    Raises:
        BadInput: unknown, not yet built, needs a loaded diffusion model, or no such device.
        UnreadableFile: no judge at ``weights``.
    """
    info = method(name)
    if not info.available:
        usable = ", ".join(known.name for known in METHODS if known.available and known.needs == ("image",))
        raise BadInput(
            f"a scorer that the command line has ({usable})", f"{name}, which is planned", "Use another scorer."
        )
    if name != "judge":
        raise BadInput(
            "a scorer that needs only images",
            f"{name}, which needs {', '.join(info.needs)}",
            "Use it in ComfyUI, where a model is loaded; the command line has --scorer judge.",
        )
    place = _device(device)
    from ..methods.judge import SHIPPED, Judge

    return Judge.load(place, SHIPPED if weights is None else weights, policy=policy)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()
    # PyTorch's four answers: no such device or one without numbers (meta), one without kernels here (a RuntimeError
    # too), one that this build leaves out, and one whose module is not installed.
    except (RuntimeError, AssertionError, ModuleNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput("a device that this PyTorch can use", f"{name} ({reason})", "Use --device cpu.") from error
    return name
