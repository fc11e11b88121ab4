"""Our own small networks under ComfyUI's memory management: loaded when used, unloaded when the room is needed."""

from __future__ import annotations

from typing import Any

import comfy.ops
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from torch import Tensor

#: An estimate, not measured on a card: a small CNN's largest activations, in units of its input's bytes.
ACTIVATIONS = 32


def layer_ops() -> Any:
    """ComfyUI's layers (``Conv2d``, ``Linear`` …), which cast half-precision weights to the input's dtype.

    Networks whose builder takes an ``ops`` namespace (``torch.nn`` by default) are built with these for ComfyUI.
    """
    return comfy.ops.manual_cast


class PlacedNetwork(torch.nn.Module):
    """A network that ComfyUI loads for each call and may unload between calls.

    It stands wherever the network itself would: call it with tensors on any device; results lie on :attr:`device`.

    Args:
        network: Built on the CPU, weights filled in. It is not copied.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.patcher = ModelPatcher(
            network,
            load_device=model_management.get_torch_device(),
            offload_device=model_management.unet_offload_device(),
        )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.patcher.load_device

    def load(self, memory_required: float = 0.0) -> None:
        """Have ComfyUI put all weights on :attr:`device`; cheap when they are there."""
        model_management.throw_exception_if_processing_interrupted()
        model_management.load_models_gpu([self.patcher], memory_required=memory_required, force_full_load=True)

    def forward(self, *given: Tensor) -> Any:
        """The network's own output for what it is given."""
        self.load(ACTIVATIONS * sum(x.numel() * x.element_size() for x in given))
        return self.network(*(x.to(self.device) for x in given))


def place(network: torch.nn.Module) -> PlacedNetwork:
    """Put one of our networks under ComfyUI's memory management."""
    return PlacedNetwork(network)
