"""Our own small networks under ComfyUI's memory management: loaded when used, unloaded when the room is needed."""

from __future__ import annotations

import logging
from typing import Any

import comfy.ops
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .memory import fits_beside_the_loaded, is_there

logger = logging.getLogger(__name__)

#: An estimate, not measured on a card: a small CNN's largest activations, in units of its input's bytes. A network
#: that knows better says so by an attribute ``activations``.
ACTIVATIONS = 32


def layer_ops() -> Any:
    """ComfyUI's layers (``Conv2d``, ``Linear`` …), which cast half-precision weights to the input's dtype.

    Networks whose builder takes an ``ops`` namespace (``torch.nn`` by default) are built with these for ComfyUI.
    """
    return comfy.ops.manual_cast


class PlacedNetwork(torch.nn.Module):
    """A network that ComfyUI loads for each call and may unload between calls.

    It stands wherever the network itself would: call it with tensors on any device; results lie on :attr:`device`.
    It never pushes another model off the device: where there is no room beside what is loaded, it runs on the CPU.

    Args:
        network: Built on the CPU, weights filled in. It is not copied.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self._told = False
        self.network = network.eval().requires_grad_(False)
        self.patcher = ModelPatcher(
            network,
            load_device=model_management.get_torch_device(),
            offload_device=model_management.unet_offload_device(),
        )

    @property
    def device(self) -> torch.device:
        """Where its results lie, and where it computes when there is room."""
        return self.patcher.load_device

    def load(self, memory_required: float = 0.0) -> torch.device:
        """Have ComfyUI put all weights on :attr:`device`, if they fit beside what is loaded; cheap when they are there.

        Args:
            memory_required: Bytes of activations that one call needs.

        Returns:
            Where the weights are, and inputs have to be.
        """
        model_management.throw_exception_if_processing_interrupted()
        if is_there(self.patcher, memory_required):
            return self.device
        if fits_beside_the_loaded(self.patcher, memory_required):
            model_management.load_models_gpu([self.patcher], memory_required=memory_required, force_full_load=True)
            return self.device
        if not self._told:
            logger.warning("%s runs on the CPU: no room beside the loaded models.", type(self.network).__name__)
            self._told = True
        self.patcher.detach()
        self.network.to("cpu")
        return torch.device("cpu")

    def forward(self, *given: Tensor) -> Any:
        """The network's own output for what it is given."""
        factor = float(getattr(self.network, "activations", ACTIVATIONS))
        place = self.load(factor * sum(x.numel() * x.element_size() for x in given))
        out = self.network(*(x.to(place) for x in given))
        return out if place == self.device else _moved(out, self.device)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)(_moved(inner, device) for inner in value)
    return value


def place(network: torch.nn.Module) -> PlacedNetwork:
    """Put one of our networks under ComfyUI's memory management."""
    return PlacedNetwork(network)
