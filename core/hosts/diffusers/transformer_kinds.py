"""What differs between the transformers that are known: their blocks, their text, how they are asked for a velocity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ...backbone.families import ModelFacts
from ...errors import BadInput

if TYPE_CHECKING:
    from ...backbone.contracts import Family

#: Latent pixels per token, along each side; Flux.2's are tokens themselves.
PATCH = 2
#: Z-Image fills image and text up to multiples of so many tokens.
_MULTIPLE = 32
#: Flux.2 fills texts up to so many tokens.
_FLUX2_TEXT = 512


class Kind(Protocol):
    """One class of networks.

    Attributes:
        attention: A block's attribute that holds the attention in which the image meets the text.
        patch: Latent pixels per token, along each side.
    """

    attention: str
    patch: int

    def facts(self, config: Any) -> ModelFacts:
        """What the registry of families asks, in ComfyUI's words."""
        ...

    def sizes(self, config: Any) -> tuple[int, int]:
        """Channels of a block's tokens, and heads of its attention."""
        ...

    def lists(self, network: Any) -> list[tuple[str, Any]]:
        """Its blocks in forward order, by name."""
        ...

    def places(self, cells: int, tokens: int) -> tuple[slice, slice]:
        """Where a block keeps the image's cells, as rows of its attention too, and which columns are the text's."""
        ...

    def velocity(self, network: Any, x: Tensor, sigma: Tensor, told: dict[str, Any], family: Family) -> Tensor:
        """Noised latents [N, C, h, w] of even sides at sigma [N] → what is predicted, of the same shape."""
        ...


class _Kind:
    """What most of them share."""

    attention = "attn"
    patch = PATCH

    def sizes(self, config: Any) -> tuple[int, int]:
        heads = int(config.num_attention_heads)
        return heads * int(config.attention_head_dim), heads

    def lists(self, network: Any) -> list[tuple[str, Any]]:
        return [("block", network.transformer_blocks)]

    def places(self, cells: int, tokens: int) -> tuple[slice, slice]:
        return slice(tokens, tokens + cells), slice(0, tokens)


class _SD3(_Kind):
    """SD 3 and 3.5: the image's tokens stand before the text's in the attention."""

    def facts(self, config: Any) -> ModelFacts:
        return ModelFacts("SD3", "flow", *_channels(config))

    def places(self, cells: int, tokens: int) -> tuple[slice, slice]:
        return slice(0, cells), slice(cells, cells + tokens)

    def velocity(self, network: Any, x: Tensor, sigma: Tensor, told: dict[str, Any], family: Family) -> Tensor:
        most = int(network.config.pos_embed_max_size or 0) * PATCH
        if most and max(x.shape[2:]) > most:
            got = " × ".join(str(side * family.latent_stride) for side in x.shape[2:])
            expected = f"pictures of at most {most * family.latent_stride} px a side, SD3's table of places"
            raise BadInput(expected, f"{got} px", "Score at a smaller side, or in tiles.")
        return network(x, timestep=1000.0 * sigma, **told).sample


class _Flux(_Kind):
    """Flux.1: the text's tokens stand before the image's; latents come as tokens of 2 × 2."""

    def facts(self, config: Any) -> ModelFacts:
        channels = (count // PATCH**2 for count in _channels(config))
        return ModelFacts("Flux" if config.guidance_embeds else "FluxSchnell", "flow", *channels)

    def lists(self, network: Any) -> list[tuple[str, Any]]:
        return [("double", network.transformer_blocks), ("single", network.single_transformer_blocks)]

    def velocity(self, network: Any, x: Tensor, sigma: Tensor, told: dict[str, Any], family: Family) -> Tensor:
        rows, _, height, width = x.shape
        h, w = height // PATCH, width // PATCH
        places = torch.zeros(h, w, 3, device=x.device)
        places[..., 1], places[..., 2] = torch.arange(h)[:, None], torch.arange(w)[None]
        guided = network.config.guidance_embeds
        out = network(
            _packed(x),
            timestep=sigma,
            img_ids=places.view(-1, 3),
            txt_ids=torch.zeros(told["encoder_hidden_states"].shape[1], 3, device=x.device),
            guidance=torch.full((rows,), family.guidance or 0.0, device=x.device) if guided else None,
            **told,
        ).sample
        return _unpacked(out, x)


class _Flux2(_Flux):
    """Flux.2, dev and klein: as ComfyUI does, a text of fewer than 512 tokens gets zeros before it; four axes."""

    patch = 1

    def facts(self, config: Any) -> ModelFacts:
        return ModelFacts("Flux2", "flow", *_channels(config))

    def places(self, cells: int, tokens: int) -> tuple[slice, slice]:
        first = max(tokens, _FLUX2_TEXT)
        return slice(first, first + cells), slice(first - tokens, first)

    def velocity(self, network: Any, x: Tensor, sigma: Tensor, told: dict[str, Any], family: Family) -> Tensor:
        rows, _, h, w = x.shape
        tokens = told["encoder_hidden_states"]
        tokens = F.pad(tokens, (0, 0, max(0, _FLUX2_TEXT - tokens.shape[1]), 0))
        places = torch.zeros(h, w, 4, device=x.device)
        places[..., 1], places[..., 2] = torch.arange(h)[:, None], torch.arange(w)[None]
        words = torch.zeros(tokens.shape[1], 4, device=x.device)
        words[:, 3] = torch.arange(tokens.shape[1])
        guided = network.config.guidance_embeds
        out = network(
            x.flatten(2).transpose(1, 2),
            encoder_hidden_states=tokens,
            timestep=sigma,
            img_ids=places.view(-1, 4),
            txt_ids=words,
            guidance=torch.full((rows,), family.guidance or 0.0, device=x.device) if guided else None,
        ).sample
        return out.transpose(1, 2).unflatten(-1, (h, w))


class _Wan(_Kind):
    """Wan 2.1, text to video: a true cross-attention to the text; a picture is a video of one frame."""

    attention = "attn2"

    def facts(self, config: Any) -> ModelFacts:
        return ModelFacts("WAN21_T2V" if config.image_dim is None else "WAN21_I2V", "flow", *_channels(config))

    def lists(self, network: Any) -> list[tuple[str, Any]]:
        return [("block", network.blocks)]

    def places(self, cells: int, tokens: int) -> tuple[slice, slice]:
        return slice(0, cells), slice(0, tokens)

    def velocity(self, network: Any, x: Tensor, sigma: Tensor, told: dict[str, Any], family: Family) -> Tensor:
        return network(x.unsqueeze(2), 1000.0 * sigma, told["encoder_hidden_states"]).sample.squeeze(2)


class _Lumina2(_Kind):
    """Lumina Image 2: refined text before refined image in one sequence; time runs from noise to picture."""

    def facts(self, config: Any) -> ModelFacts:
        return ModelFacts("Lumina2", "flow", *_channels(config))

    def sizes(self, config: Any) -> tuple[int, int]:
        return int(config.hidden_size), int(config.num_attention_heads)

    def lists(self, network: Any) -> list[tuple[str, Any]]:
        return [("block", network.layers)]

    def velocity(self, network: Any, x: Tensor, sigma: Tensor, told: dict[str, Any], family: Family) -> Tensor:
        tokens = told["encoder_hidden_states"]
        every = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return -network(x, 1.0 - sigma, tokens, every).sample


class _ZImage(_Kind):
    """Z-Image: image before text, each filled up; takes lists of pictures and of texts."""

    attention = "attention"

    def facts(self, config: Any) -> ModelFacts:
        return ModelFacts("ZImage", "flow", int(config.in_channels), int(config.in_channels))

    def sizes(self, config: Any) -> tuple[int, int]:
        return int(config.dim), int(config.n_heads)

    def lists(self, network: Any) -> list[tuple[str, Any]]:
        return [("block", network.layers)]

    def places(self, cells: int, tokens: int) -> tuple[slice, slice]:
        first = -(-cells // _MULTIPLE) * _MULTIPLE
        return slice(0, cells), slice(first, first + tokens)

    def velocity(self, network: Any, x: Tensor, sigma: Tensor, told: dict[str, Any], family: Family) -> Tensor:
        frames, texts = list(x.unsqueeze(2).unbind()), list(told["encoder_hidden_states"].unbind())
        return -torch.stack(network(frames, 1.0 - sigma, texts).sample).squeeze(2)


class _QwenImage(_Kind):
    """Qwen-Image: joint attention, the text first; latents of one video frame come as tokens of 2 × 2."""

    def facts(self, config: Any) -> ModelFacts:
        plain = not (getattr(config, "use_layer3d_rope", False) or getattr(config, "use_additional_t_cond", False))
        return ModelFacts("QwenImage" if plain else "QwenImageLayered", "flow", *_channels(config))

    def velocity(self, network: Any, x: Tensor, sigma: Tensor, told: dict[str, Any], family: Family) -> Tensor:
        shape = (1, x.shape[2] // PATCH, x.shape[3] // PATCH)
        out = network(
            _packed(x),
            timestep=sigma,
            encoder_hidden_states=told["encoder_hidden_states"],
            img_shapes=[[shape]] * len(x),
        ).sample
        return _unpacked(out, x)


#: The networks that are known, by class.
NETWORKS: dict[str, type[Kind]] = {
    "SD3Transformer2DModel": _SD3,
    "FluxTransformer2DModel": _Flux,
    "Flux2Transformer2DModel": _Flux2,
    "WanTransformer3DModel": _Wan,
    "Lumina2Transformer2DModel": _Lumina2,
    "ZImageTransformer2DModel": _ZImage,
    "QwenImageTransformer2DModel": _QwenImage,
}


def _channels(config: Any) -> tuple[int, int]:
    """Of what goes in and what comes out."""
    return int(config.in_channels), int(config.out_channels or config.in_channels)


def _packed(x: Tensor) -> Tensor:
    """Latents [N, C, h, w] → tokens of 2 × 2 [N, cells, 4 C]."""
    rows, channels, height, width = x.shape
    cut = x.view(rows, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(rows, -1, channels * PATCH**2)


def _unpacked(tokens: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`_packed`, to the shape of ``like``."""
    rows, channels, height, width = like.shape
    cut = tokens.view(rows, height // PATCH, width // PATCH, channels, PATCH, PATCH)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(like.shape)
