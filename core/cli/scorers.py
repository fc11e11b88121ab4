"""From a scorer's name to a scorer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadInput
from ..methods import method

if TYPE_CHECKING:
    from ..methods.contract import Scorer


@dataclass(frozen=True, slots=True)
class OnModel:
    """The head of a scorer on a diffusion model, and that model; a :class:`~.loaded_model.ModelChoice`.

    Attributes:
        head: The head's file.
        model: ``embedded``, or a folder in diffusers' layout.
        checkpoint: A checkpoint's file, inside ComfyUI.
        device: Where it runs.
    """

    head: Path | None = None
    model: str = "embedded"
    checkpoint: Path | None = None
    device: str = "auto"


def load_scorer(
    name: str,
    device: str = "auto",
    weights: str | Path | None = None,
    policy: str = "full",
    on_model: OnModel | None = None,
) -> Scorer:
    """A scorer on a device.

    Args:
        name: In the registry.
        device: ``auto``, ``cpu``, ``cuda`` …
        weights: A judge's file, the shipped one when ``None``.
        policy: The judge's views.
        on_model: Head and model of a scorer that needs them.

    Raises:
        BadInput: unknown, not yet built, not on the command line, no head for one that needs it, or no such device.
        UnreadableFile: a file is missing or damaged.
        MismatchedBackbone: the head was fitted for another model.
    """
    info = method(name)
    if not info.available:
        raise BadInput(
            f"a scorer that this command has ({', '.join(_HERE)})", f"{name}, which is planned", "Use another scorer."
        )
    if name not in _HERE:
        raise BadInput(
            f"a scorer that this command has ({', '.join(_HERE)})",
            f"{name}, which needs {', '.join(info.needs)}",
            "Use it in ComfyUI, where a model is loaded.",
        )
    if name == "lgdm":
        return _lgdm(on_model or OnModel())
    if on_model is not None and on_model.head is not None:
        raise BadInput("--head with --scorer lgdm", f"--scorer {name}", "Name the scorer, or leave the head out.")
    place = _device(device)
    from ..methods.judge import SHIPPED, Judge

    return Judge.load(place, SHIPPED if weights is None else weights, policy=policy)


#: What `score`, `rank` and `reject` can run; `benchmark --comfyui` has more.
_HERE = ("judge", "lgdm")


def _lgdm(choice: OnModel) -> Scorer:
    if choice.head is None:
        raise BadInput("a head for lgdm", "none", "Name its file with --head; latent-critic fit-head makes one.")
    from ..heads.head_file import load_head
    from ..methods.lgdm import Lgdm, options_of
    from ..methods.psis import make_psi
    from .loaded_model import load_backbone

    head = load_head(choice.head)
    options = options_of(head)
    backbone = load_backbone(choice)
    wanted = options.kind == "guided_path" and options.guidance.zeta2 > 0.0
    return Lgdm(backbone, head, make_psi(options.psi, backbone) if wanted else None)


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
