"""The state of a run in one safetensors file: weights, averages, optimiser. Whole or absent, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ...errors import BadInput, UnreadableFile
from ...files import whole_file

FORMAT = 1


@dataclass(slots=True)
class State:
    """What a step changes, and what a resumed run must know.

    Attributes:
        trained: Parts in training, by name.
        frozen: Parts that are only carried along.
        optimiser: Adam over ``trained``, its parameters in the order of :meth:`names`.
        average: Exponential moving averages of ``trained``, by part and weight name.
        step: Steps made so far.
        first: Step at which this optimiser began.
        notes: Plain values: latent scale, seed …
    """

    trained: dict[str, nn.Module]
    frozen: dict[str, nn.Module]
    optimiser: torch.optim.Optimizer
    average: dict[str, Tensor]
    step: int = 0
    first: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def names(self) -> list[tuple[str, nn.Parameter]]:
        """(part/weight, parameter) of everything in training, in a fixed order."""
        return [
            (f"{part}/{name}", parameter)
            for part, module in self.trained.items()
            for name, parameter in module.named_parameters()
        ]

    def update_average(self, decay: float) -> None:
        """Move the averages towards the weights; early on they follow faster."""
        decay = min(decay, (1 + self.step - self.first) / (10 + self.step - self.first))
        for name, parameter in self.names():
            self.average[name].lerp_(parameter.detach(), 1 - decay)

    def averaged(self, part: str) -> dict[str, Tensor]:
        """A part's averaged weights, or its plain ones when it is frozen."""
        if part in self.frozen:
            return {name: tensor.detach().clone() for name, tensor in self.frozen[part].state_dict().items()}
        weights = {name: tensor.detach().clone() for name, tensor in self.trained[part].state_dict().items()}
        return weights | {name: self.average[f"{part}/{name}"] for name in weights if f"{part}/{name}" in self.average}


def begin(trained: dict[str, nn.Module], frozen: dict[str, nn.Module], step: int, decay: float) -> State:
    """A fresh state; ``step`` is how far the weights have come already, ``decay`` AdamW's weight decay."""
    parameters = [parameter for module in trained.values() for parameter in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.99), weight_decay=decay)
    state = State(trained, frozen, optimiser, {}, step, step)
    state.average = {name: parameter.detach().clone() for name, parameter in state.names()}
    return state


def save(state: State, path: Path) -> None:
    """Write the state, whole or not at all."""
    tensors = {f"average/{name}": tensor for name, tensor in state.average.items()}
    for part, module in (state.trained | state.frozen).items():
        tensors |= {f"weights/{part}/{name}": tensor for name, tensor in module.state_dict().items()}
    for name, parameter in state.names():
        for key, value in state.optimiser.state.get(parameter, {}).items():
            tensors[f"adam/{key}/{name}"] = torch.as_tensor(value)
    told = {"format": FORMAT, "step": state.step, "first": state.first, "notes": state.notes}
    with whole_file(path) as temporary:
        # Convolution weights may lie channels-last; the file holds them in their plain order.
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(plain, temporary, metadata={"latent_critic": json.dumps(told)})


def restore(state: State, path: Path) -> None:
    """Fill a fresh state of the same architecture from a file.

    Raises:
        BadInput: a state of networks of other sizes.
        UnreadableFile: no state file, or a damaged one.
    """
    with _readable(path):
        told, tensors = _read(path)
        misfit = _misfit(state, tensors)
        if misfit is None:
            _fill(state, tensors)
    if misfit is not None:
        remedy = "Go on with the settings that the run was begun with, or name another run folder."
        raise BadInput(f"networks of the sizes in {path}", misfit, remedy)
    state.step, state.first, state.notes = int(told["step"]), int(told["first"]), dict(told["notes"])


def notes_of(path: Path) -> dict[str, Any]:
    """A state file's notes alone.

    Raises:
        UnreadableFile: no state file, or a damaged one.
    """
    with _readable(path), safe_open(path, framework="pt") as file:
        return dict(_told(file)["notes"])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        remedy = "Name another run folder, or delete this file to begin again."
        raise UnreadableFile(f"a training state at {path}", f"{type(error).__name__}: {error}", remedy) from error


def _misfit(state: State, tensors: Mapping[str, Tensor]) -> str | None:
    """The first weight that is not the same here and in the file."""
    for part, module in (state.trained | state.frozen).items():
        own = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
        held = {name: list(tensor.shape) for name, tensor in _under(tensors, f"weights/{part}/").items()}
        for name in (*own, *held):
            if own.get(name) != held.get(name):
                return f"{part}/{name} {own.get(name, 'absent')}, there {held.get(name, 'absent')}"
    return None


def _fill(state: State, tensors: Mapping[str, Tensor]) -> None:
    for part, module in (state.trained | state.frozen).items():
        module.load_state_dict(_under(tensors, f"weights/{part}/"))
    for name, parameter in state.names():
        state.average[name] = tensors[f"average/{name}"].to(parameter.device)
        _restore_adam(state, name, parameter, tensors)


def _restore_adam(state: State, name: str, parameter: nn.Parameter, tensors: Mapping[str, Tensor]) -> None:
    keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"adam/{key}/{name}" in tensors]
    if not keys:
        return
    found = {key: tensors[f"adam/{key}/{name}"] for key in keys}
    layout = torch.channels_last if parameter.ndim == 4 else torch.contiguous_format
    state.optimiser.state[parameter] = {
        key: value if key == "step" else value.to(parameter.device, memory_format=layout)
        for key, value in found.items()
    }


def averaged_part(path: Path, part: str) -> dict[str, Tensor]:
    """One part's averaged weights out of a state file."""
    _, tensors = _read(path)
    return _under(tensors, f"weights/{part}/") | _under(tensors, f"average/{part}/")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        return _told(file), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


def _told(file: Any) -> dict[str, Any]:
    told = json.loads((file.metadata() or {})["latent_critic"])
    if told["format"] != FORMAT:
        raise ValueError(f"format {told['format']}, this version reads {FORMAT}")
    return told


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
