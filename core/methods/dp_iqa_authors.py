"""The DP-IQA authors' checkpoints: plain state dicts of a teacher or a student, for academic use only.

They are downloaded by the user from the authors' own place; nothing of them is part of this project. Every key of a
file is accounted for: loaded, known as unused by the authors' own forward, or named in an error.
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import BadInput, UnreadableFile
from ..nets.dp_iqa_decoder import DecoderShape
from ..nets.dp_iqa_student import StudentNetwork, StudentShape
from .dp_iqa_head import DpHead, DpNets, DpShape, base_meta
from .dp_iqa_settings import PUBLISHED

if TYPE_CHECKING:
    from torch import nn

    from ..backbone.residuals import ResidualBackbone

Kind = Literal["teacher", "student"]
#: SD 1.5: four down levels, text of width 768, 512-pixel squares.
PUBLISHED_SHAPE = DpShape(DecoderShape((1280, 1280, 640, 320)), 768, 768, (320, 640, 1280, 1280))
PUBLISHED_STUDENT = StudentShape()
#: What a damaged file makes PyTorch or safetensors raise.
_DAMAGED = (
    OSError, SafetensorError, RuntimeError, ValueError, AttributeError, EOFError, pickle.UnpicklingError, LookupError,
    TypeError, AssertionError, OverflowError, MemoryError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
_REMEDY = "Download the authors' file again."
#: In the files, not in the authors' forward.
_UNUSED = ("QFD.bnc1.", "QFD.classifier_dist.", "base_model.classifier.")
#: Not in the files: what their decoder does without.
_OURS = ("QFD.centre", "QFD.scale")
_TEACHER, _STUDENT = ("gamma", "unet.", "vae.", "text_adapter.", "img_adapter.", "QFD."), ("base_model.", "conv_transp")


@dataclass(frozen=True, slots=True)
class Teacher:
    """A teacher's parts.

    Attributes:
        unet: State dict of the fine-tuned U-Net, by diffusers' names.
        vae: State dict of the autoencoder, by diffusers' names.
        nets: Adapters and decoder.
        unused: Keys that the authors' own forward does not use.
    """

    unet: Mapping[str, Tensor]
    vae: Mapping[str, Tensor]
    nets: DpNets
    unused: tuple[str, ...]


def read_state(path: str | Path) -> dict[str, Tensor]:
    """A state dict out of a pickle (``weights_only=True``) or safetensors.

    Raises:
        UnreadableFile: missing, damaged, or a pickle that is no plain state dict.
    """
    path = Path(path)
    expected = f"a state dict of tensors in {path.name}"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        told = _unpickled(path)
    except _DAMAGED as e:
        got = "no such file" if not path.exists() else f"{type(e).__name__}: {str(e)[:200]}"
        if _is_page(path):
            got = "not a checkpoint: a web page, as a link to a download page gives"
        raise UnreadableFile(expected, got, "Only files of plain tensors are opened: a pickle can run code.") from e
    if not isinstance(told, Mapping) or not told or not all(isinstance(value, Tensor) for value in told.values()):
        raise UnreadableFile(expected, _described(told), "Name the authors' teacher or student file.")
    return {str(key): value for key, value in told.items()}


def _unpickled(path: Path) -> object:
    # Files of PyTorch before 1.6 are no zip and cannot be mapped.
    with warnings.catch_warnings():  # of a damaged file's protocol number
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _is_page(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml"))
    except OSError:
        return False


def _described(told: object) -> str:
    if not isinstance(told, Mapping):
        return f"a {type(told).__name__}"
    other = [f"{key}: {type(value).__name__}" for key, value in told.items() if not isinstance(value, Tensor)]
    return f"a dict with {', '.join(other[:3])}" if other else "an empty dict"


def kind_of(state: Mapping[str, Tensor]) -> Kind:
    """Whether this is a teacher or a student.

    Raises:
        UnreadableFile: neither.
    """
    if any(key.startswith("QFD.") for key in state):
        return "teacher"
    if any(key.startswith("base_model.features.") for key in state):
        return "student"
    got = ", ".join(sorted(state)[:3])
    raise UnreadableFile("a DP-IQA teacher (QFD.…) or student (base_model.…)", f"keys such as {got}", _REMEDY)


def teacher_of(state: Mapping[str, Tensor], shape: DpShape = PUBLISHED_SHAPE) -> Teacher:
    """Split a teacher's state dict. U-Net and VAE are checked where they are loaded.

    Raises:
        BadInput: keys missing, unknown, or of a wrong shape; a U-Net of another base than SD 1.5.
    """
    _known(state, _TEACHER)
    _same_base(state, shape)
    unet, vae = (_under(state, prefix) for prefix in ("unet.", "vae."))
    for name, part in (("unet", unet), ("vae", vae)):
        if not part:
            raise BadInput(f"a teacher with its {name}.*", "none of its keys", _REMEDY)
    unused = tuple(key for key in state if key.startswith(_UNUSED))
    own = {
        ("text_adapter.gamma" if key == "gamma" else key): value
        for key, value in state.items()
        if key not in unused and not key.startswith(("unet.", "vae."))
    }
    bias = "QFD.se1.fc.0.bias" in own
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        nets = DpNets(replace(shape, decoder=replace(shape.decoder, squeeze_bias=bias)))
    plain = {name: _blank(name, value) for name, value in nets.state_dict().items() if name.startswith(_OURS)}
    fill(nets, {**own, **plain})
    return Teacher(unet, vae, nets.eval().requires_grad_(False), unused)


def student_of(state: Mapping[str, Tensor], shape: StudentShape = PUBLISHED_STUDENT) -> StudentNetwork:
    """A student out of its state dict.

    Raises:
        BadInput: keys missing, unknown, or of a wrong shape.
    """
    own = {key: value for key, value in state.items() if not key.startswith(_UNUSED)}
    kernel = own.get("conv_transpose.weight")
    if kernel is not None and kernel.ndim == 4:
        shape = replace(shape, kernel=kernel.shape[-1])  # its size is not published
    with torch.device("meta"):
        network = StudentNetwork(shape)
    fill(network, own)
    return network.eval().requires_grad_(False)


def fill(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put every tensor into its place, float32.

    Raises:
        BadInput: names the first keys that are missing, unknown, or of a wrong shape.
    """
    expected = network.state_dict()
    # Counters of batch norms are of no use, and may be absent.
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in expected]
    wrong = [name for name, value in state.items() if name in expected and value.shape != expected[name].shape]
    for what, names in (("missing", missing), ("unknown", unknown)):
        if names:
            got = f"{len(names)} {what}: {', '.join(names[:4])}"
            raise BadInput("every key of the authors' layout and no other", got, _REMEDY)
    if wrong:
        name = wrong[0]
        expected_text = f"{name} {list(expected[name].shape)}"
        raise BadInput(expected_text, f"{list(state[name].shape)} ({len(wrong)} wrong in all)", _REMEDY)
    counters = {name: torch.zeros((), dtype=torch.long) for name in expected if name not in state}
    floats = {name: value if value.dtype == torch.long else value.float() for name, value in state.items()}
    network.load_state_dict({**counters, **floats}, assign=True)


def academic_head(backbone: ResidualBackbone, teacher: Teacher, training_set: str = "unknown") -> DpHead:
    """A teacher's adapters and decoder as a head for the model that was made of its U-Net.

    Which ratings it was trained on stands in no file: its scores, about 0 to 100, rank.
    """
    from ..backbone.residuals import level_ends

    side = teacher.nets.shape.decoder.grid * backbone.family.latent_stride
    settings = replace(PUBLISHED, side=side)
    meta = replace(base_meta(backbone, settings), training_set=training_set, centre=50.0, spread=15.0)
    taps = tuple(tap.name for tap in level_ends(backbone.family.taps))
    return DpHead(meta, teacher.nets, settings, taps, academic=True)


def _known(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> None:
    strange = [key for key in state if not key.startswith(prefixes)]
    if strange:
        got = f"{len(strange)} unknown: {', '.join(strange[:4])}"
        raise BadInput("every key of the authors' layout and no other", got, _REMEDY)


def _same_base(state: Mapping[str, Tensor], shape: DpShape) -> None:
    for name, value in state.items():
        if name.startswith("unet.") and name.endswith("attn2.to_k.weight") and value.shape[-1] != shape.token_width:
            base = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}.get(value.shape[-1], "another model")
            got = f"one on {base}: its text is {value.shape[-1]} wide"
            raise BadInput(f"a U-Net whose text is {shape.token_width} wide, as SD 1.5's", got, _REMEDY)


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _blank(name: str, value: Tensor) -> Tensor:
    return torch.full(value.shape, 1.0 if "scale" in name else 0.0)
