"""What hosts agree on to compare VAEs: the kernels at both ends of its two halves, which no host arranges otherwise."""

from __future__ import annotations

from torch import nn

VAE_KEY = "vae_ends"
#: Names of the halves: the usual ones, and a tiny VAE's in ComfyUI.
_HALVES = {"encoder": ("encoder", "taesd_encoder"), "decoder": ("decoder", "taesd_decoder")}


def vae_ends(vae: nn.Module | None) -> nn.Module | None:
    """First and last convolutions of encoder and decoder, under one name each; ``None`` for a VAE of another build."""
    found = {}
    for name, known in _HALVES.items():
        half = next((half for half in (getattr(vae, one, None) for one in known) if half is not None), None)
        first, last = _ends(half)
        if not isinstance(first, nn.Conv2d) or not isinstance(last, nn.Conv2d):
            return None
        found[name] = nn.ModuleDict({"first": first, "last": last})
    return nn.ModuleDict(found)


def _ends(half: nn.Module | None) -> tuple[nn.Module | None, nn.Module | None]:
    """An AutoencoderKL names its ends; a tiny VAE is a row of layers."""
    row = getattr(half, "layers", half)
    if isinstance(row, nn.Sequential):
        kernels = [layer for layer in row if isinstance(layer, nn.Conv2d)]
        return (kernels[0], kernels[-1]) if kernels else (None, None)
    return getattr(half, "conv_in", None), getattr(half, "conv_out", None)
