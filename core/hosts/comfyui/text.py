"""Texts through the user's CLIP: cached, with pooled parts and the token spans of words."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...backbone.contracts import Conditioning, Family
from ...errors import BadInput, MismatchedBackbone
from .words import spans_of

_KEPT = 512
_CLIPS = ("l", "g", "h")
_ORDER = {"clip_l": 0, "clip_g": 1}
_REMEDY = "Connect the CLIP of the checkpoint that MODEL comes from."


@dataclass(frozen=True, slots=True)
class _Text:
    """One encoded text."""

    tokens: Tensor
    pooled: Tensor | None
    spans: dict[int, tuple[int, int]]
    text_tokens: tuple[int, int]
    extra: dict[str, Tensor] = field(default_factory=dict)


def layout(clip: Any) -> str:
    """The text layout of a CLIP, in the words of the families: ``clip_l``, ``clip_l+clip_g``, ``qwen3_4b`` …"""
    names = (f"clip_{key}" if key in _CLIPS else key for key in clip.tokenize(""))
    return "+".join(sorted(names, key=lambda name: _ORDER.get(name, len(_ORDER))))


class TextEncoder:
    """The user's CLIP, for one diffusion model.

    Raises:
        BadInput: no CLIP at all.
        MismatchedBackbone: the CLIP is of another family.
    """

    def __init__(self, clip: Any, family: Family, width: int | None, pooled_width: int | None) -> None:
        if not callable(getattr(clip, "tokenize", None)) or not callable(getattr(clip, "encode_from_tokens", None)):
            raise BadInput("a CLIP", type(clip).__name__, _REMEDY)
        found = layout(clip)
        if found not in family.text_layout.split("|"):
            raise MismatchedBackbone(f"a CLIP of {family.text_layout} for {family.name}", f"one of {found}", _REMEDY)
        self._clip, self._width, self._pooled_width = clip, width, pooled_width
        self._words_from = family.words_from or found.split("+")[0]
        self._cache: OrderedDict[str, _Text] = OrderedDict()

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Texts → one row each.

        Raises:
            BadInput: no texts, or something else than texts.
            MismatchedBackbone: the token width is not what the diffusion model takes.
        """
        texts = list(prompts)
        if isinstance(prompts, str) or not texts or not all(isinstance(text, str) for text in texts):
            raise BadInput("a list of at least one text", repr(prompts)[:80], "Give one text per row.")
        found = [self._encoded(text) for text in texts]
        longest = max(text.tokens.shape[0] for text in found)
        pooled = [text.pooled for text in found if text.pooled is not None]
        return Conditioning(
            tokens=torch.stack([_filled(text.tokens, longest) for text in found]),
            pooled=torch.stack(pooled) if len(pooled) == len(found) else None,
            prompts=tuple(texts),
            spans=tuple(text.spans for text in found),
            text_tokens=tuple(text.text_tokens for text in found),
            lengths=tuple(text.tokens.shape[0] for text in found),
            row_extra={
                name: torch.stack(
                    [_filled(text.extra.get(name, value.new_ones(len(text.tokens))), longest) for text in found]
                )
                for name, value in {name: value for text in found for name, value in text.extra.items()}.items()
            },
        )

    def _encoded(self, text: str) -> _Text:
        if text not in self._cache:
            self._cache[text] = self._encode(text)
            if len(self._cache) > _KEPT:
                self._cache.popitem(last=False)
        self._cache.move_to_end(text)
        return self._cache[text]

    def _encode(self, text: str) -> _Text:
        with torch.no_grad():
            found = self._clip.encode_from_tokens(self._clip.tokenize(text), return_pooled=True, return_dict=True)
        tokens, pooled = found["cond"][0], found.get("pooled_output")
        self._check("token", tokens.shape[-1], self._width)
        if self._pooled_width is not None:
            self._check("pooled", 0 if pooled is None else pooled.shape[-1], self._pooled_width)
        spans, whole = spans_of(self._clip, text, self._words_from, len(tokens))
        mask = found.get("attention_mask")
        extra = {} if mask is None else {"attention_mask": mask[0]}
        return _Text(tokens, None if pooled is None else pooled[0], spans, whole, extra)

    def _check(self, what: str, got: int, expected: int | None) -> None:
        if expected is not None and got != expected:
            raise MismatchedBackbone(f"a CLIP whose {what} width is {expected}", f"one with {got}", _REMEDY)


def _filled(tokens: Tensor, length: int) -> Tensor:
    """Tokens [T, …] repeated to a length."""
    times = math.ceil(length / len(tokens))
    return tokens.repeat(times, *[1] * (tokens.ndim - 1))[:length]
