"""The shipped linear weights of LPIPS and DISTS; see the card beside them."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

_FILE = Path(__file__).parents[1] / "assets" / "perceptual" / "linear.safetensors"


def lpips_weights(network: str) -> tuple[Tensor, ...]:
    """One [C] per layer, ≥ 0."""
    tensors = load_file(_FILE)
    return tuple(tensors[f"lpips_{network}.{layer}"] for layer in range(5))


def dists_weights() -> tuple[Tensor, Tensor]:
    """alpha (texture) and beta (structure), [3 + 1472] each, ≥ 0; brought to a sum of 1 together."""
    tensors = load_file(_FILE)
    alpha, beta = tensors["dists.alpha"], tensors["dists.beta"]
    total = alpha.sum() + beta.sum()
    return alpha / total, beta / total
