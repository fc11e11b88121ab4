"""Reads taps out of ComfyUI's forwards: patches and one wrapper on a clone, silent unless a recording is under way.

Nothing is installed on a module, with one exception: the last output block's value is seen by no patch, so a hook sits
on ``diffusion_model.out`` while a forward that needs it runs, and is removed before that forward returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...backbone.contracts import Tap
from ...taps.recorder import Grid, Key, Record, Recorder, TapRequest
from .unet_taps import Place, UNetTaps

_BRANCHES = ("cond", "uncond")

#: Under which names wrappers hang on a clone: a scorer's own, and a probe's, which stays on the user's MODEL.
TAPS_KEY, PROBE_KEY = "latent_critic_taps", "latent_critic_probe"

#: A forward's options → the branch of each of its chunks; ``None`` for a chunk that nobody records.
Branches: TypeAlias = Callable[[Mapping[str, Any]], Sequence["str | None"]]


def by_number(options: Mapping[str, Any]) -> list[str | None]:
    """The branches as ComfyUI's own guider numbers them; other guiders number theirs as they like."""
    return [_BRANCHES[chunk] for chunk in options["cond_or_uncond"]]


class _EnoughRecorded(Exception):
    """The last requested tap has fired; caught in the wrapper below and nowhere else."""


@dataclass(slots=True)
class _Recording:
    """One call of the denoiser that somebody records."""

    recorder: Recorder
    wanted: Mapping[str, TapRequest]
    call: int
    rows: Sequence[int]
    last: str | None = None
    branches: Branches = by_number
    inside: bool = False
    marked: Place | None = None
    sigmas: list[float] = field(default_factory=list)


class Tapping:
    """The patches of one clone of the user's model."""

    def __init__(self, taps: UNetTaps, latent_channels: int) -> None:
        self._taps, self._latent_channels = taps, latent_channels
        self._now: _Recording | None = None
        self._inner_override: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Tapping:
        """Itself: ComfyUI deep-copies the options of every clone, and those must still record here."""
        return self

    def install(self, patcher: Any, *, attention: bool = True, key: str = TAPS_KEY) -> None:
        """Add the patches to a clone; patches that the user's model brought stay in force.

        Args:
            patcher: The clone.
            attention: Whether attention taps are wanted too.
            key: The wrapper's name.
        """
        options = patcher.model_options["transformer_options"]
        if attention:
            self._inner_override = options.get("optimized_attention_override")
            options["optimized_attention_override"] = self._attention
            patcher.set_model_attn2_patch(self._mark)
        # First in line, so that a feature is the block's own output and not what FreeU and its like make of it.
        options.setdefault("patches", {}).setdefault("output_block_patch", []).insert(0, self._output_block)
        patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, key, self._forward)

    @contextmanager
    def recording(
        self,
        recorder: Recorder | None,
        *,
        call: int,
        rows: Sequence[int],
        stop: bool,
        branches: Branches = by_number,
    ) -> Iterator[None]:
        """Record forwards until the block ends.

        Args:
            recorder: Where to; ``None`` records nothing.
            call: The call's number in the recorder.
            rows: Which rows of the call the rows of these forwards are.
            stop: End each forward at the last requested tap.
            branches: Tells which chunk of a forward is which branch.
        """
        if recorder is None:
            yield
            return
        wanted = recorder.wanted(self._taps.order)
        last = list(wanted)[-1] if stop else None
        self._now = _Recording(recorder, wanted, call, rows, last, branches)
        try:
            yield
        finally:
            self._now = None

    # What ComfyUI calls ---------------------------------------------------------------------------------------------

    def _forward(self, executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Around ``UNetModel.forward``."""
        now = self._now
        if now is None:
            return executor(x, *args, **kwargs)
        options = kwargs.get("transformer_options") or next(a for a in reversed(args) if isinstance(a, dict))
        now.inside, now.marked, now.sigmas = True, None, options["sigmas"].tolist()
        unhook = self._hook_last(executor.class_obj, now, options)
        try:
            return executor(x, *args, **kwargs)
        except _EnoughRecorded:
            return x.new_zeros((x.shape[0], self._latent_channels, *x.shape[2:]))
        finally:
            now.inside = False
            unhook()

    def _hook_last(self, unet: Any, now: _Recording, options: dict[str, Any]) -> Any:
        tap = self._taps.features.get(len(unet.output_blocks))
        if tap is None or tap.name not in now.wanted:
            return _nothing
        return unet.out.register_forward_pre_hook(lambda module, args: self._feature(tap, args[0], options)).remove

    def _output_block(self, h: Tensor, hsp: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Before output block i joins its skip: ``h`` is what block i-1 gave."""
        tap = self._taps.features.get(options["block"][1])
        if tap is not None:
            self._feature(tap, h, options)
        return h, hsp

    def _feature(self, tap: Tap, h: Tensor, options: dict[str, Any]) -> None:
        now = self._now
        if now is not None and now.inside and tap.name in now.wanted:
            self._put(now, tap, h, Grid(*h.shape[-2:]), options)

    def _mark(
        self, n: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Just before a cross-attention: the next attention call of this place is it."""
        if self._now is not None:
            self._now.marked = _place(options)
        return n, context, value

    def _attention(self, func: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any) -> Tensor:
        now = self._now
        if now is not None and now.inside and now.marked is not None:
            options = kwargs.get("transformer_options") or {}
            marked, now.marked = now.marked, None
            tap = self._taps.attention.get(marked)
            if tap is not None and tap.name in now.wanted and _place(options) == marked:
                self._cross_attention(now, tap, q, k, heads, options, bool(kwargs.get("skip_reshape")))
        if self._inner_override is not None:
            return self._inner_override(func, q, k, v, heads, *args, **kwargs)
        return func(q, k, v, heads, *args, **kwargs)

    def _cross_attention(
        self, now: _Recording, tap: Tap, q: Tensor, k: Tensor, heads: int, options: dict[str, Any], split: bool
    ) -> None:
        grid = Grid(*options["activations_shape"][-2:])
        queries = q if split else q.unflatten(-1, (heads, -1)).transpose(1, 2)
        keys = k if split else k.unflatten(-1, (heads, -1)).transpose(1, 2)
        if queries.shape[2] != grid.h * grid.w:
            return  # a token-merging pack has changed the grid: the tap stays silent, and the recorder says so
        logits = queries.float() @ keys.float().transpose(-1, -2) * queries.shape[-1] ** -0.5
        self._put(now, tap, logits, grid, options)

    def _put(self, now: _Recording, tap: Tap, values: Tensor, grid: Grid, options: dict[str, Any]) -> None:
        branches, count = now.branches(options), len(now.rows)
        if len(values) != len(branches) * count:
            return  # another pack leaves rows out: which ones these are is not known, and the tap stays silent
        reduce = now.wanted[tap.name].reducer
        for branch, part in zip(branches, values.split(count), strict=True):
            if branch is None:
                continue
            for row, value in enumerate(reduce(part, grid)):
                key = Key(tap.name, now.call, branch, now.rows[row])
                now.recorder.put(Record(key, now.sigmas[row], grid, value))
        if tap.name == now.last:
            raise _EnoughRecorded


def _place(options: Mapping[str, Any]) -> Place | None:
    block = options.get("block")
    return None if block is None else (block[0], block[1], options.get("block_index", 0))


def _nothing() -> None:
    """Nothing to take back."""
