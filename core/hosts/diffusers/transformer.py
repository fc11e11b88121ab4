"""A pipeline's diffusion transformer as a denoiser: SD3 and Flux, whose text takes part in joint attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbone.contracts import Tap
from ...backbone.families import ModelFacts
from ...taps.recorder import Grid
from .joint_attention import FirstAttention
from .recording import recorded
from .transformer_names import published_weights

if TYPE_CHECKING:
    from ...backbone.contracts import Conditioning, Family
    from ...taps.recorder import Recorder

#: Latent pixels per token, along each side.
_PATCH = 2


@dataclass(frozen=True, slots=True)
class Block:
    """One transformer block: the taps of its image tokens and of its text attention."""

    feature: Tap
    text: Tap
    module: Any


class TransformerDenoiser:
    """See :class:`.denoiser.Denoiser`."""

    def __init__(self, pipeline: Any) -> None:
        self.network = pipeline.transformer
        self._kind = NETWORKS[type(self.network).__name__]()
        self.facts = self._kind.facts(self.network.config)
        self._blocks = [
            block for name, modules in self._kind.lists(self.network) for block in self._named(name, modules)
        ]
        self.order = [tap for block in self._blocks for tap in (block.text, block.feature)]

    def _named(self, name: str, modules: Iterable[nn.Module]) -> Iterator[Block]:
        heads = int(self.network.config.num_attention_heads)
        channels = heads * int(self.network.config.attention_head_dim)
        for number, module in enumerate(modules):
            label = f"{name}.{number}"
            feature = Tap(label, "feature", channels, _PATCH)
            yield Block(feature, Tap(f"{label}.text", "attention", heads, _PATCH), module)

    def weights(self) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
        """Every matrix under the published checkpoint's name."""
        return published_weights(self.network)

    @contextmanager
    def recording(
        self, recorder: Recorder | None, sigmas: Sequence[float], rows: Sequence[int], x: Tensor, *, stop: bool
    ) -> Iterator[None]:
        """Record one forward of latents ``x``."""
        if recorder is None:
            yield
            return
        wanted, put = recorded(recorder, self.order, sigmas, rows, stop=stop)
        grid = Grid(*(-(-side // _PATCH) for side in x.shape[-2:]))
        with ExitStack() as stack:
            attention = stack.enter_context(FirstAttention(grid.h * grid.w, text_first=self._kind.text_first))
            for block in self._blocks:
                if block.text.name in wanted:
                    read = lambda logits, tap=block.text: put(tap, logits, grid)  # noqa: E731
                    stack.callback(attention.announce(block.module.attn, read))
                if block.feature.name in wanted:
                    hook = block.module.register_forward_hook(_reading(block.feature, grid, put))
                    stack.callback(hook.remove)
            yield

    def estimate(self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, family: Family) -> Tensor:
        """Noised latents [N, C, h, w] at sigma [N] → x0, float32. Odd sides are filled up as ComfyUI fills them."""
        height, width = z_t.shape[2:]
        x = F.pad(z_t, (0, width % _PATCH, 0, height % _PATCH), mode="circular") if (height | width) % _PATCH else z_t
        dtype = self.network.dtype
        told = {
            "encoder_hidden_states": conditioning.tokens.to(x.device, dtype),
            "pooled_projections": None if conditioning.pooled is None else conditioning.pooled.to(x.device, dtype),
        }
        out = self._kind.velocity(self.network, x.to(dtype), sigma.to(x.device, torch.float32), told, family)
        return z_t - sigma.to(z_t).view(-1, 1, 1, 1) * out.float()[..., :height, :width]


class _SD3:
    """SD 3 and 3.5: the image's tokens stand before the text's in the attention."""

    text_first = False

    def facts(self, config: Any) -> ModelFacts:
        return ModelFacts("SD3", "flow", int(config.in_channels), int(config.out_channels or config.in_channels))

    def lists(self, network: Any) -> list[tuple[str, Any]]:
        return [("block", network.transformer_blocks)]

    def velocity(self, network: Any, x: Tensor, sigma: Tensor, told: dict[str, Any], family: Family) -> Tensor:
        return network(x, timestep=1000.0 * sigma, **told).sample


class _Flux:
    """Flux.1: the text's tokens stand before the image's; latents come as tokens of 2 × 2."""

    text_first = True

    def facts(self, config: Any) -> ModelFacts:
        channels = [
            int(count) // _PATCH**2 for count in (config.in_channels, config.out_channels or config.in_channels)
        ]
        return ModelFacts("Flux" if config.guidance_embeds else "FluxSchnell", "flow", *channels)

    def lists(self, network: Any) -> list[tuple[str, Any]]:
        return [("double", network.transformer_blocks), ("single", network.single_transformer_blocks)]

    def velocity(self, network: Any, x: Tensor, sigma: Tensor, told: dict[str, Any], family: Family) -> Tensor:
        rows, channels, height, width = x.shape
        h, w = height // _PATCH, width // _PATCH
        tokens = x.view(rows, channels, h, _PATCH, w, _PATCH).permute(0, 2, 4, 1, 3, 5).reshape(rows, h * w, -1)
        places = torch.zeros(h, w, 3, device=x.device)
        places[..., 1], places[..., 2] = torch.arange(h)[:, None], torch.arange(w)[None]
        guided = network.config.guidance_embeds
        out = network(
            tokens,
            timestep=sigma,
            img_ids=places.view(-1, 3),
            txt_ids=torch.zeros(told["encoder_hidden_states"].shape[1], 3, device=x.device),
            guidance=torch.full((rows,), family.guidance or 0.0, device=x.device) if guided else None,
            **told,
        ).sample
        return out.view(rows, h, w, channels, _PATCH, _PATCH).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


#: The networks that are known, by class.
NETWORKS: dict[str, type[_SD3] | type[_Flux]] = {"SD3Transformer2DModel": _SD3, "FluxTransformer2DModel": _Flux}


def _reading(tap: Tap, grid: Grid, put: Any) -> Any:
    cells = grid.h * grid.w

    def after(module: nn.Module, args: Any, out: Any) -> None:
        # A pair of text and image; older single blocks give both in one sequence, the image last.
        values = out[1] if isinstance(out, tuple) else out[:, -cells:]
        put(tap, values.transpose(1, 2).unflatten(-1, (grid.h, grid.w)), grid)

    return after
