"""Hooks on a diffusers U-Net for one forward: LoRA beside matrices, and taps into a recorder. All differentiable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...backbone.adaptation import CrossLora, Part
from ...backbone.contracts import Tap
from ...errors import BadInput
from ...taps.recorder import Grid, Key, Record, Recorder, TapRequest
from .names import Places


class EnoughRecorded(Exception):
    """The last requested tap has fired."""


def matrix(attention: Any, part: Part) -> nn.Linear:
    """q, k, v or out of an attention."""
    return attention.to_out[0] if part == "out" else getattr(attention, f"to_{part}")


@contextmanager
def lora_beside(places: Places, lora: CrossLora) -> Iterator[None]:
    """W x + (alpha / rank) · up (down x) on every layer of the LoRA, until the block ends."""
    factor = 1.0 if lora.alpha is None or not lora.rank else lora.alpha / lora.rank
    with ExitStack() as stack:
        for (tap, part), (down, up) in lora.layers.items():

            def add(module: nn.Module, args: Any, out: Tensor, down: Tensor = down, up: Tensor = up) -> Tensor:
                x = args[0]
                low = x @ down.to(x.device, x.dtype).T
                return out + factor * (low @ up.to(x.device, x.dtype).T).to(out.dtype)

            stack.callback(matrix(places.attention[tap][1], part).register_forward_hook(add).remove)
        yield


@contextmanager
def residuals_beside(unet: Any, residuals: Sequence[Tensor] | None) -> Iterator[None]:
    """Add [N, C, h, w] to the last output of each down level before it is made smaller, until the block ends.

    Raises:
        BadInput: not one for every down level.
    """
    with ExitStack() as stack:
        if residuals is not None:
            if len(residuals) != len(unet.down_blocks):
                got = str(len(residuals))
                raise BadInput(f"{len(unet.down_blocks)} residuals, one a down level", got, "Use this model's adapter.")
            for block, residual in zip(unet.down_blocks, residuals, strict=True):
                attentions = getattr(block, "attentions", None)
                module = attentions[-1] if attentions else block.resnets[-1]
                stack.callback(module.register_forward_hook(_adding(residual)).remove)
        yield


def _adding(residual: Tensor) -> Any:
    def add(module: nn.Module, args: Any, out: Any) -> Any:
        if isinstance(out, Tensor):
            return out + residual.to(out)
        return (out[0] + residual.to(out[0]), *out[1:])

    return add


def recorded(
    recorder: Recorder, order: Sequence[Tap], sigmas: Sequence[float], rows: Sequence[int], *, stop: bool
) -> tuple[dict[str, TapRequest], Callable[[Tap, Tensor, Grid], None]]:
    """What is wanted of one forward, and what takes a tap's values; with ``stop`` it raises after the last one."""
    wanted = recorder.wanted(order)
    last = list(wanted)[-1]

    def put(tap: Tap, values: Tensor, grid: Grid) -> None:
        for row, value in enumerate(wanted[tap.name].reducer(values, grid)):
            recorder.put(Record(Key(tap.name, recorder.calls, "cond", rows[row]), sigmas[row], grid, value))
        if stop and tap.name == last:
            raise EnoughRecorded

    return wanted, put


@contextmanager
def recording(
    places: Places, recorder: Recorder | None, sigmas: Sequence[float], rows: Sequence[int], *, stop: bool
) -> Iterator[None]:
    """Record one forward; with ``stop`` it ends at the last requested tap by raising :class:`EnoughRecorded`.

    Enter it inside :func:`lora_beside`: hooks fire in the order in which they were hung, and a tap sees LoRA's result.
    """
    if recorder is None:
        yield
        return
    wanted, put = recorded(recorder, places.order, sigmas, rows, stop=stop)
    with ExitStack() as stack:
        for name, request in wanted.items():
            if request.tap.kind == "feature":
                stack.callback(places.features[name].register_forward_hook(_feature(request.tap, put)).remove)
            else:
                for hook in _attention_hooks(places, request.tap, put):
                    stack.callback(hook.remove)
        yield


def _feature(tap: Tap, put: Any) -> Any:
    def read(module: nn.Module, args: Any, out: Any) -> None:
        values = out if isinstance(out, Tensor) else out[0]
        put(tap, values, Grid(*values.shape[-2:]))

    return read


def _attention_hooks(places: Places, tap: Tap, put: Any) -> list[Any]:
    transformer, attention = places.attention[tap.name]
    if type(attention.processor).__name__.startswith("Fused"):
        remedy = "Call pipeline.unfuse_qkv_projections()."
        raise BadInput("a U-Net whose attentions project q and k apart", "fused projections", remedy)
    seen: dict[str, Any] = {}

    def size(module: nn.Module, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        seen["grid"] = Grid(*hidden.shape[-2:])

    def queries(module: nn.Module, args: Any, out: Tensor) -> None:
        seen["q"] = out

    def keys(module: nn.Module, args: Any, out: Tensor) -> None:
        q, k = (part.unflatten(-1, (attention.heads, -1)).transpose(1, 2).float() for part in (seen["q"], out))
        with torch.autocast(q.device.type, enabled=False):  # it would take the product in half precision
            logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        put(tap, logits, seen["grid"])

    return [
        transformer.register_forward_pre_hook(size, with_kwargs=True),
        attention.to_q.register_forward_hook(queries),
        attention.to_k.register_forward_hook(keys),
    ]
