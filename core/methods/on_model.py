"""Scorers that look at pictures with a diffusion model, made by name: on any host's backbone, with whatever head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, UnreadableFile

if TYPE_CHECKING:
    from torch import nn

    from .contract import Scorer

#: Puts a small network of ours where the host wants it.
Place = Callable[["nn.Module"], Callable[..., Any]]


def read_head(path: str | Path) -> Any:
    """A head's file, whatever wrote it; its ``meta.method`` says whose it is.

    Raises:
        UnreadableFile: missing, damaged, or no head; a pickle is not opened.
    """
    _no_pickle(Path(path))
    from ..heads.head_file import load_head
    from .diff_v2_iqa_file import is_diff_v2, load_diff_v2
    from .dp_iqa_file import is_dp_iqa, load_dp_iqa
    from .genziqa_file import is_genziqa, load_genziqa

    if is_diff_v2(path):
        return load_diff_v2(path)
    if is_genziqa(path):
        return load_genziqa(path)
    return load_dp_iqa(path) if is_dp_iqa(path) else load_head(path)


def _no_pickle(path: Path) -> None:
    """Name what a pickle is, and where those that run do."""
    try:
        with path.open("rb") as file:
            begin = file.read(4)
    except OSError:
        return
    # A zip as torch.save writes it, or a pickle of protocol 2 to 5; safetensors begin with a length of 8 bytes.
    if begin.startswith(b"PK\x03\x04") or (begin[:1] == b"\x80" and begin[1:2] in b"\x02\x03\x04\x05" and begin[2:]):
        remedy = "The DP-IQA authors' files, for academic use only, run in ComfyUI's node DP-IQA Scorer alone."
        raise UnreadableFile(f"a head of ours (.safetensors) at {path}", "a PyTorch pickle", remedy)


def shipped_head(name: str) -> Path | None:
    """The head of this scorer that comes with the package, for the embedded model; ``None`` where none does."""
    from . import dp_iqa_file, genziqa_file, lgdm

    found = {"lgdm": lgdm.SHIPPED, "genziqa": genziqa_file.SHIPPED, "dp_iqa": dp_iqa_file.SHIPPED}.get(name)
    return found if found is not None and found.is_file() else None


def scorer_on(
    name: str, backbone: Any, head: Any = None, *, seed: int | None = None, place: Place | None = None
) -> Any:
    """A scorer on a model.

    Args:
        name: Of :data:`ON_MODEL`.
        backbone: The model, by a host that can do what this scorer asks (``genziqa``: lay LoRA over it; ``dp_iqa``:
            add residuals to its down blocks).
        head: As :func:`read_head` gives it, for those that need one.
        seed: Of the noise; the scorer's own when left out.
        place: For the small networks of ours; on the backbone's device when left out.

    Raises:
        BadInput: no such scorer, no head for one that needs it, or one of another scorer.
        MismatchedBackbone: the head was made for another model.
    """
    if name not in _MAKERS:
        raise BadInput(f"a scorer on a model ({', '.join(_MAKERS)})", repr(name), "Use one of these names.")
    whose = None if head is None else head.meta.method
    wanted = None if name in WITHOUT_HEAD else name
    if whose != wanted:
        expected = f"no head for {name}" if wanted is None else f"a head for {name}"
        got = "none" if whose is None else f"one for {whose}"
        raise BadInput(expected, got, "Name the scorer that the head is for, or its file.")
    return _MAKERS[name](backbone, head, seed, place)


def _zero_shot(backbone: Any, head: None, seed: int | None, place: Place | None) -> Scorer:
    from .zero_shot import ZeroShot, ZeroShotOptions

    return ZeroShot(backbone, options=ZeroShotOptions() if seed is None else ZeroShotOptions(seed=seed))


def _lgdm(backbone: Any, head: Any, seed: int | None, place: Place | None) -> Scorer:
    from .lgdm import Lgdm, options_of
    from .psis import make_psi

    if seed is not None:
        told = dict(head.meta.settings)
        told["guidance"] = {**told["guidance"], "seed": seed}
        head = replace(head, meta=replace(head.meta, settings=told))
    options = options_of(head)
    wanted = options.kind == "guided_path" and options.guidance.zeta2 > 0.0
    return Lgdm(backbone, head, make_psi(options.psi, backbone) if wanted else None)


def _genziqa(backbone: Any, head: Any, seed: int | None, place: Place | None) -> Scorer:
    from .genziqa import GenzIQA

    if seed is not None:
        head = replace(head, settings=replace(head.settings, seed=seed))
    return GenzIQA(backbone, head)


def _dp_iqa(backbone: Any, head: Any, seed: int | None, place: Place | None) -> Scorer:
    """The seed is that of the draw from the VAE's posterior; a head without one draws nothing."""
    from .dp_iqa import DpIqa, DpOptions
    from .dp_iqa_text import user_folder

    if seed is not None and head.settings.sample is not None:
        head = replace(head, settings=replace(head.settings, sample=seed))
    return DpIqa(backbone, head, DpOptions(text_folder=user_folder()), place)


_MAKERS: dict[str, Callable[[Any, Any, int | None, Place | None], Scorer]] = {
    "zero_shot": _zero_shot,
    "lgdm": _lgdm,
    "genziqa": _genziqa,
    "dp_iqa": _dp_iqa,
}
#: Names that :func:`scorer_on` knows.
ON_MODEL = tuple(_MAKERS)
#: Those of them that need none.
WITHOUT_HEAD = ("zero_shot",)
