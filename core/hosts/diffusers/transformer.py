"""A pipeline's diffusion transformer as a denoiser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbone.contracts import Tap
from ...errors import BadInput
from ...taps.recorder import Grid
from .joint_attention import FirstAttention
from .recording import recorded
from .transformer_kinds import NETWORKS
from .transformer_names import published_weights

if TYPE_CHECKING:
    from ...backbone.contracts import Conditioning, Family
    from ...taps.recorder import Recorder


@dataclass(frozen=True, slots=True)
class Block:
    """One transformer block: the taps of its image tokens and of its text attention."""

    feature: Tap
    text: Tap
    module: Any


class TransformerDenoiser:
    """See :class:`.denoiser.Denoiser`."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self._kind = NETWORKS[type(self.network).__name__]()
        self.facts = self._kind.facts(self.network.config)
        self._blocks = [
            block for name, modules in self._kind.lists(self.network) for block in self._named(name, modules)
        ]
        self.order = [tap for block in self._blocks for tap in (block.text, block.feature)]

    def _named(self, name: str, modules: Iterable[nn.Module]) -> Iterator[Block]:
        channels, heads = self._kind.sizes(self.network.config)
        patch = self._kind.patch
        for number, module in enumerate(modules):
            label = f"{name}.{number}"
            feature = Tap(label, "feature", channels, patch)
            yield Block(feature, Tap(f"{label}.text", "attention", heads, patch), module)

    def weights(self) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
        """Every matrix under the published checkpoint's name."""
        return published_weights(self.network)

    @contextmanager
    def recording(
        self,
        recorder: Recorder | None,
        sigmas: Sequence[float],
        rows: Sequence[int],
        x: Tensor,
        tokens: int,
        *,
        stop: bool,
    ) -> Iterator[None]:
        """Record one forward of latents ``x``."""
        if recorder is None:
            yield
            return
        wanted, put = recorded(recorder, self.order, sigmas, rows, stop=stop)
        grid = Grid(*(-(-side // self._kind.patch) for side in x.shape[-2:]))
        with ExitStack() as stack:
            image, text = self._kind.places(grid.h * grid.w, tokens)
            attention = stack.enter_context(FirstAttention(image, text))
            for block in self._blocks:
                if block.text.name in wanted:
                    read = lambda logits, tap=block.text: put(tap, logits, grid)  # noqa: E731
                    stack.callback(attention.announce(getattr(block.module, self._kind.attention), read))
                if block.feature.name in wanted:
                    hook = block.module.register_forward_hook(_reading(block.feature, grid, image, put))
                    stack.callback(hook.remove)
            yield

    def estimate(self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, family: Family) -> Tensor:
        """Noised latents [N, C, h, w] at sigma [N] → x0, float32. Odd sides are filled up as ComfyUI fills them.

        Raises:
            BadInput: a cache of steps is on, which would give what another picture left.
        """
        if getattr(self.network, "is_cache_enabled", False):
            remedy = "Call pipeline.transformer.disable_cache()."
            raise BadInput("a network without a cache of steps", "one with", remedy)
        height, width = z_t.shape[2:]
        down, right = -height % self._kind.patch, -width % self._kind.patch
        x = F.pad(z_t, (0, right, 0, down), mode="circular") if down or right else z_t
        dtype = self.network.dtype
        told = {
            "encoder_hidden_states": conditioning.tokens.to(x.device, dtype),
            "pooled_projections": None if conditioning.pooled is None else conditioning.pooled.to(x.device, dtype),
        }
        out = self._kind.velocity(self.network, x.to(dtype), sigma.to(x.device, torch.float32), told, family)
        return z_t - sigma.to(z_t).view(-1, 1, 1, 1) * out.float()[..., :height, :width]


def _reading(tap: Tap, grid: Grid, image: slice, put: Any) -> Any:
    def after(module: nn.Module, args: Any, out: Any) -> None:
        # A pair of text and image, or one sequence of which the image is a part.
        values = out[1] if isinstance(out, tuple) else out[:, image]
        put(tap, values.transpose(1, 2).unflatten(-1, (grid.h, grid.w)), grid)

    return after
