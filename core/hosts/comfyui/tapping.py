"""Reads taps out of ComfyUI's forwards: patches and one wrapper on a clone, silent unless a recording is under way.

What lies in the wrapper and in the attention is the same for every kind of denoiser and stands here; where features
come from and which attention call is the text's is each kind's own, in :mod:`.unet_tapping` and
:mod:`.transformer_tapping`.
Nothing stays on a module: where a value is seen by no patch, a hook sits on its module while a forward that needs it
runs, and is removed before that forward returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...backbone.contracts import Tap
from ...taps.recorder import Grid, Key, Record, Recorder, TapRequest

_BRANCHES = ("cond", "uncond")

#: Under which names wrappers hang on a clone: a scorer's own, and a probe's, which stays on the user's MODEL.
TAPS_KEY, PROBE_KEY = "latent_critic_taps", "latent_critic_probe"

#: A forward's options → the branch of each of its chunks; ``None`` for a chunk that nobody records.
Branches: TypeAlias = Callable[[Mapping[str, Any]], Sequence["str | None"]]
#: Whatever takes a hook off again.
Unhook: TypeAlias = Callable[[], None]


def by_number(options: Mapping[str, Any]) -> list[str | None]:
    """The branches as ComfyUI's own guider numbers them; other guiders number theirs as they like."""
    return [_BRANCHES[chunk] for chunk in options["cond_or_uncond"]]


class _EnoughRecorded(Exception):
    """The last requested tap has fired; caught in the wrapper below and nowhere else."""


@dataclass(frozen=True, slots=True)
class Marked:
    """What the next attention call is.

    Attributes:
        tap: Whose it is.
        grid: Of its image tokens.
        rows: Which queries are the image's.
        columns: Which keys are the text's.
        place: ComfyUI's own name of the block, which the call must carry; ``None`` where it carries none.
    """

    tap: Tap
    grid: Grid
    rows: slice = field(default_factory=lambda: slice(None))
    columns: slice = field(default_factory=lambda: slice(None))
    place: object = None


@dataclass(slots=True)
class Recording:
    """One call of the denoiser that somebody records."""

    recorder: Recorder
    wanted: Mapping[str, TapRequest]
    call: int
    rows: Sequence[int]
    last: str | None = None
    branches: Branches = by_number
    tokens: int | None = None
    inside: bool = False
    marked: Marked | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Tapping:
    """The patches of one clone of the user's model.

    Args:
        order: Its taps, in forward order.
        latent_channels: Channels of what the denoiser gives.
    """

    #: The wrapper around a forward; its first arguments are latents and, as its first 3-D tensor, the text.
    wrapper = WrappersMP.DIFFUSION_MODEL

    def __init__(self, order: Sequence[Tap], latent_channels: int) -> None:
        self._order, self._latent_channels = order, latent_channels
        self._now: Recording | None = None
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
        self._patch(patcher, attention=attention)
        patcher.add_wrapper_with_key(self.wrapper, key, self._forward)

    @contextmanager
    def recording(
        self,
        recorder: Recorder | None,
        *,
        call: int,
        rows: Sequence[int],
        stop: bool,
        branches: Branches = by_number,
        tokens: int | None = None,
    ) -> Iterator[None]:
        """Record forwards until the block ends.

        Args:
            recorder: Where to; ``None`` records nothing.
            call: The call's number in the recorder.
            rows: Which rows of the call the rows of these forwards are.
            stop: End each forward at the last requested tap.
            branches: Tells which chunk of a forward is which branch.
            tokens: How many tokens the text has; some models put filling before it. All columns when left out.
        """
        if recorder is None:
            yield
            return
        wanted = recorder.wanted(self._order)
        last = list(wanted)[-1] if stop else None
        self._now = Recording(recorder, wanted, call, rows, last, branches, tokens)
        try:
            yield
        finally:
            self._now = None

    # What each kind of denoiser adds --------------------------------------------------------------------------------

    def _patch(self, patcher: Any, *, attention: bool) -> None:
        """Patches of its own on a clone."""

    def _hooks(self, network: nn.Module, x: Tensor, text: Tensor | None, now: Recording) -> list[Unhook]:
        """Hooks for one forward of ``x`` with ``text``."""
        raise NotImplementedError

    # What ComfyUI calls ---------------------------------------------------------------------------------------------

    def _forward(self, executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Around the denoiser's forward."""
        now = self._now
        if now is None:
            return executor(x, *args, **kwargs)
        options = kwargs.get("transformer_options") or next(a for a in reversed(args) if isinstance(a, dict))
        text = next((a for a in args if isinstance(a, Tensor) and a.ndim == 3), None)
        network = getattr(executor.class_obj, "diffusion_model", executor.class_obj)
        now.inside, now.marked, now.options = True, None, options
        unhook = self._hooks(network, x, text, now)
        try:
            return executor(x, *args, **kwargs)
        except _EnoughRecorded:
            return x.new_zeros((x.shape[0], self._latent_channels, *x.shape[2:]))
        finally:
            now.inside = False
            for take_off in unhook:
                take_off()

    def _attention(self, func: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any) -> Tensor:
        now = self._now
        if now is not None and now.inside and now.marked is not None:
            marked, now.marked = now.marked, None
            if marked.place is None or marked.place == place_of(kwargs.get("transformer_options") or {}):
                self._text_attention(now, marked, q, k, heads, split=bool(kwargs.get("skip_reshape")))
        if self._inner_override is not None:
            return self._inner_override(func, q, k, v, heads, *args, **kwargs)
        return func(q, k, v, heads, *args, **kwargs)

    def _text_attention(self, now: Recording, marked: Marked, q: Tensor, k: Tensor, heads: int, *, split: bool) -> None:
        queries = q if split else q.unflatten(-1, (heads, -1)).transpose(1, 2)
        keys = k if split else k.unflatten(-1, (heads, -1)).transpose(1, 2)
        queries, keys = queries[:, :, marked.rows], keys[:, :, marked.columns]
        if queries.shape[2] != marked.grid.h * marked.grid.w:
            return  # a token-merging pack has changed the grid: the tap stays silent, and the recorder says so
        logits = queries.float() @ keys.float().transpose(-1, -2) * queries.shape[-1] ** -0.5
        self._put(now, marked.tap, logits, marked.grid)

    def _feature(self, tap: Tap, h: Tensor) -> None:
        """Take features [rows, channels, h, w] of a forward under way, if they are wanted."""
        now = self._now
        if now is not None and now.inside and tap.name in now.wanted:
            self._put(now, tap, h, Grid(*h.shape[-2:]))

    def _put(self, now: Recording, tap: Tap, values: Tensor, grid: Grid) -> None:
        branches, count = now.branches(now.options), len(now.rows)
        if len(values) != len(branches) * count:
            return  # another pack leaves rows out: which ones these are is not known, and the tap stays silent
        sigmas = now.options["sigmas"].tolist()
        reduce = now.wanted[tap.name].reducer
        for branch, part in zip(branches, values.split(count), strict=True):
            if branch is None:
                continue
            for row, value in enumerate(reduce(part, grid)):
                key = Key(tap.name, now.call, branch, now.rows[row])
                now.recorder.put(Record(key, sigmas[row], grid, value))
        if tap.name == now.last:
            raise _EnoughRecorded


def place_of(options: Mapping[str, Any]) -> tuple[str, int, int] | None:
    """ComfyUI's own name of the block that is running, and the transformer's index inside it."""
    block = options.get("block")
    return None if block is None else (block[0], block[1], options.get("block_index", 0))
