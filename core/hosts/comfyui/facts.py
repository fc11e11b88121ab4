"""What ComfyUI knows of a MODEL, in the words of the families' registry, and the sketch of its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from comfy import model_sampling
from comfy.quant_ops import QuantizedTensor
from torch import Tensor

from ...backbone.families import ModelFacts
from ...backbone.fingerprint import Fingerprint, sketch
from .quantised import in_blocks, without_patches

_PREFIX = "diffusion_model."


def model_facts(model: Any) -> ModelFacts:
    """Facts of a ModelPatcher, as its nodes have set it up (ModelSampling nodes change the prediction)."""
    network = model.model
    unet_config = network.model_config.unet_config
    return ModelFacts(
        config=type(network.model_config).__name__,
        prediction=_prediction(model.get_model_object("model_sampling")),
        in_channels=int(unet_config.get("in_channels") or unet_config.get("in_dim") or 0),
        out_channels=int(
            unet_config.get("out_channels") or unet_config.get("out_dim") or network.latent_format.latent_channels
        ),
    )


def _prediction(sampling: Any) -> str:
    if isinstance(sampling, model_sampling.EDM):  # a V_PREDICTION by inheritance, with a network output of its own
        return "edm"
    if isinstance(sampling, model_sampling.V_PREDICTION):
        return "v"
    if isinstance(sampling, model_sampling.X0):
        return "x0"
    if isinstance(sampling, model_sampling.EPS):
        return "eps"
    if isinstance(sampling, model_sampling.CONST):
        return "flow"
    return type(sampling).__name__


def fingerprint(model: Any, family: str) -> Fingerprint:
    """Sketch the unpatched weights of a MODEL's denoiser, reading a few hundred values."""
    return sketch_of(model, model.model.diffusion_model, family, _PREFIX)


def sketch_of(patcher: Any, network: torch.nn.Module, name: str, prefix: str = "") -> Fingerprint:
    """Sketch the unpatched weights of a network that a ModelPatcher holds under ``prefix``.

    Patched weights lie in place of the originals, which ComfyUI keeps in the patcher's backup.
    """
    blocks = in_blocks(network)
    weights = {
        key: parameter
        for key, parameter in network.named_parameters()
        if len(parameter.shape) >= 2 and (parameter.dtype.is_floating_point or key in blocks)
    }

    def read(key: str, where: Sequence[int]) -> list[float]:
        known = without_patches(*blocks[key]) if key in blocks else _original(patcher, prefix + key, weights[key])
        return values_at(known, where)

    values = sketch([(key, math.prod(weight.shape)) for key, weight in weights.items()], read) if weights else ()
    coarse = any(isinstance(weight.data, QuantizedTensor) or weight.element_size() < 2 for weight in weights.values())
    return Fingerprint(name, values, is_patched(patcher), coarse)


def values_at(tensor: Tensor, where: Sequence[int]) -> list[float]:
    """Values at flat places of a tensor of any dtype."""
    tensor = tensor.detach()
    flat = (tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor).reshape(-1)
    # One by one: a gather on fp8 is not implemented everywhere, single values are.
    return [float(flat[place].float()) for place in where]


def _original(model: Any, key: str, weight: Tensor) -> Tensor:
    hooked = model.hook_backup.get(key)
    if hooked is not None:
        return hooked[0]
    backup = model.backup.get(key)
    return weight if backup is None else backup.weight


def is_patched(model: Any) -> bool:
    """Whether LoRA or anything else changes the weights that a forward uses."""
    return any((model.patches, model.weight_wrapper_patches, model.hook_patches, model.injections))
