"""Gradients through layers whose weights are cast in every forward: cast again in the backward instead of kept.

Under dynamic VRAM, with weights left in RAM (``--lowvram``), with LoRA applied on the fly, and with 8-bit or quantised
weights, a layer works on a passing copy of its weight. Autograd would keep every such copy until the backward, which
costs the memory that was to be saved; and the host may have put the next layer's weight into the same buffer by then.
Here a layer's backward runs the layer once more, with the weight cast afresh, and takes the slope of that run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from comfy import ops
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from .aliases import alias, is_plain

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@contextmanager
def recast(network: nn.Module) -> Iterator[None]:
    """Until the block ends, layers of ComfyUI's that cast their weight for an input cast it again in the backward.

    Which layers do is looked up in every call: what ComfyUI loads or leaves in RAM changes between calls.
    """
    wrapped: list[nn.Module] = []
    try:
        for module in network.modules():
            if isinstance(module, ops.CastWeightBiasOp) and "forward" not in vars(module):
                vars(module)["forward"] = _wrapped(module)
                wrapped.append(module)
        yield
    finally:
        for module in wrapped:
            vars(module).pop("forward", None)


def casts(module: nn.Module, given: Tensor) -> bool:
    """Whether this layer makes a passing copy of its weight for this input."""
    weight = getattr(module, "weight", None)
    if weight is None:
        return False
    on_the_fly = getattr(module, "weight_function", None) or getattr(module, "bias_function", None)
    return bool(on_the_fly) or not (
        is_plain(weight)
        and not hasattr(module, "_v")  # dynamic VRAM's handle on a weight
        and (weight.device, weight.dtype) == (given.device, given.dtype)
    )


def _wrapped(module: nn.Module) -> Callable[..., Any]:
    own = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else None
        if not isinstance(given, Tensor) or not casts(module, given):
            return own(*args, **kwargs)
        if torch.is_grad_enabled() and given.requires_grad:
            return _Recast.apply(given, module, lambda x: own(x, *args[1:], **kwargs))
        return _without_autograd(module, lambda: own(*args, **kwargs))

    return forward


def _without_autograd(module: nn.Module, layer: Callable[[], Tensor]) -> Tensor:
    """What comes out is an ordinary tensor, and no view: a model may write over it, which a function's views forbid."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if hasattr(module, "cast_bias_weight"):
            # A loader's own tensor class is made for inference mode, and for nobody watching over overwritten tensors.
            stack.enter_context(_disable_current_modes())
            stack.enter_context(torch.inference_mode())
        out = layer()
    return alias(out)


class _Recast(torch.autograd.Function):
    """A layer as a function of its input; nothing of its weight is kept, and of a linear layer not the input either."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, module: nn.Module, layer: Callable[[Tensor], Tensor]) -> Tensor:
        """The layer's own forward."""
        ctx.module, ctx.layer = module, layer
        ctx.linear = isinstance(module, _LINEAR) or hasattr(module, "in_features")
        ctx.shape, ctx.dtype, ctx.device = given.shape, given.dtype, given.device
        if not ctx.linear:
            ctx.save_for_backward(given)
        return _without_autograd(module, lambda: layer(given.detach()))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The slope of one more forward; a linear layer's is the same at every input, so at 0 too."""
        layer = _with_its_own_cast(ctx.module, slope) or ctx.layer
        kept = () if ctx.linear else ctx.saved_tensors
        at = kept[0].detach() if kept else torch.zeros(ctx.shape, dtype=ctx.dtype, device=ctx.device)
        with torch.enable_grad():
            at.requires_grad_(True)
            out = layer(at)
            if out.requires_grad:
                return torch.autograd.grad(out, at, slope)[0], None, None
        return _through_full_weight(ctx.module, slope), None, None


def _with_its_own_cast(module: nn.Module, slope: Tensor) -> Callable[[Tensor], Tensor] | None:
    """For a linear layer of a loader (GGUF) that makes its weight by itself: the layer with that weight, no bias."""
    cast: Any = getattr(module, "cast_bias_weight", None)
    if cast is None or not isinstance(module, nn.Linear | nn.Conv2d):
        return None
    weight = _without_autograd(module, lambda: cast(slope)[0])
    if isinstance(module, nn.Linear):
        return lambda x: nn.functional.linear(x, weight)
    return lambda x: module._conv_forward(x, weight, None)


def _through_full_weight(module: nn.Module, slope: Tensor) -> Tensor:
    """For a product in few bits, which autograd does not know: the slope that the weight in full precision has."""
    weight: Any = module.weight
    if not is_plain(weight):
        weight = weight.dequantize()
    return slope @ weight.to(slope.device, slope.dtype)
