"""The three networks, built through diffusers and transformers so that their weights load there unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from ...hosts.diffusers.embedded import fill
from ...nets import critic_ldm
from .settings import Architecture

_BLOCKS = (1, 3, 3, 3)
TOKENS = 49408
TEXT_LENGTH = 77
_PREFIX = "text_model."


class FactorisedEmbedding(nn.Module):
    """Token ids [...] → [..., width]: a table of low rank times a shared basis, a tenth of the parameters."""

    def __init__(self, tokens: int, rank: int, width: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(tokens, rank) * 0.5)
        self.basis = nn.Parameter(torch.randn(rank, width) * 0.1)

    def forward(self, ids: Tensor) -> Tensor:
        """Look the rows up and spread them over the width."""
        return nn.functional.embedding(ids, self.rows) @ self.basis


@dataclass(slots=True)
class Networks:
    """The model in training: ``text`` holds a factorised embedding until it is exported."""

    vae: AutoencoderTiny
    unet: UNet2DConditionModel
    text: CLIPTextModel

    def part(self, name: str) -> nn.Module:
        """A part by its folder's name."""
        return {"vae": self.vae, "unet": self.unet, "text_encoder": self.text}[name]


def build(sizes: Architecture, seed: int) -> Networks:
    """Networks with random weights, the same for one seed; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Networks(_autoencoder(sizes), _unet(sizes), _text_encoder(sizes))


def _autoencoder(sizes: Architecture) -> AutoencoderTiny:
    width = (sizes.autoencoder_width,) * 4
    model = AutoencoderTiny(
        latent_channels=sizes.latent_channels,
        encoder_block_out_channels=width,
        decoder_block_out_channels=width,
        num_encoder_blocks=_BLOCKS,
        num_decoder_blocks=_BLOCKS[::-1],
        scaling_factor=1.0,
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, AutoencoderTinyBlock):  # begins as an identity
            nn.init.zeros_(last_convolution(module.conv).weight)
    pixels = last_convolution(model.decoder.layers)  # begins near mid-grey
    pixels.weight.data.mul_(0.3)
    nn.init.constant_(bias_of(pixels), 0.5)
    return model


def last_convolution(layers: nn.Sequential) -> nn.Conv2d:
    """The convolution that ends a sequence."""
    layer = layers[-1]
    assert isinstance(layer, nn.Conv2d)
    return layer


def bias_of(convolution: nn.Conv2d) -> Tensor:
    """The bias of a convolution that has one."""
    assert convolution.bias is not None
    return convolution.bias


def _unet(sizes: Architecture) -> UNet2DConditionModel:
    levels = len(sizes.unet_channels)
    return UNet2DConditionModel(
        sample_size=sizes.native_size // 8,
        in_channels=sizes.latent_channels,
        out_channels=sizes.latent_channels,
        block_out_channels=sizes.unet_channels,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=sizes.text_width,
        attention_head_dim=sizes.unet_heads,  # diffusers' misnomer: for SD 1 models it is the number of heads
    )


def text_config(sizes: Architecture) -> CLIPTextConfig:
    """The text encoder's configuration, SD 1's in all but size."""
    return CLIPTextConfig(
        vocab_size=TOKENS,
        hidden_size=sizes.text_width,
        intermediate_size=4 * sizes.text_width,
        projection_dim=sizes.text_width,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.text_heads,
        max_position_embeddings=TEXT_LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=TOKENS - 2,
        eos_token_id=TOKENS - 1,
        pad_token_id=TOKENS - 1,
    )


def _text_encoder(sizes: Architecture) -> CLIPTextModel:
    model = CLIPTextModel(text_config(sizes))
    inner = getattr(model, "text_model", model)  # transformers 5 has dropped one level
    table = FactorisedEmbedding(TOKENS, sizes.embedding_rank, sizes.text_width)
    inner.embeddings.add_module("token_embedding", table)
    return model


def part_weights(module: nn.Module) -> dict[str, Tensor]:
    """A part's weights under the names of its file; the text encoder's carry SD's ``text_model.`` prefix."""
    weights = {name: tensor.detach() for name, tensor in module.state_dict().items() if "position_ids" not in name}
    if not isinstance(module, CLIPTextModel):
        return weights
    return {name if name.startswith(_PREFIX) else _PREFIX + name: tensor for name, tensor in weights.items()}


def sizes_in(vae: Mapping[str, Any], unet: Mapping[str, Any], text: Mapping[str, Any]) -> Architecture:
    """The sizes that the three parts' configurations tell."""
    return Architecture(
        latent_channels=vae["latent_channels"],
        autoencoder_width=vae["encoder_block_out_channels"][0],
        unet_channels=tuple(unet["block_out_channels"]),
        unet_heads=unet["attention_head_dim"],
        text_width=text["hidden_size"],
        text_layers=text["num_hidden_layers"],
        text_heads=text["num_attention_heads"],
        embedding_rank=text["embedding_rank"],
        native_size=8 * unet["sample_size"],
    )


def load(folder: Path) -> Networks:
    """Networks of a model folder, in fp32, the embedding still in two factors."""
    sizes = sizes_in(*(critic_ldm.read_config(folder, part) for part in critic_ldm.PARTS))
    networks = build(sizes, seed=0)
    for part in critic_ldm.PARTS:
        fill(networks.part(part), critic_ldm.read_stored(folder, part))
    return networks
