"""Texts through the user's CLIP: cached, with pooled parts and the token spans of words."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy import sd1_clip
from torch import Tensor

from ...backbone.contracts import Conditioning, Family
from ...errors import BadInput, MismatchedBackbone

_KEPT = 512
_REMEDY = "Connect the CLIP of the checkpoint that MODEL comes from."


@dataclass(frozen=True, slots=True)
class _Text:
    """One encoded text."""

    tokens: Tensor
    pooled: Tensor | None
    spans: dict[int, tuple[int, int]]
    text_tokens: tuple[int, int]


def layout(clip: Any) -> str:
    """The text layout of a CLIP, in the words of the families: ``clip_l``, ``clip_h``, ``clip_l+clip_g`` …"""
    return "+".join(sorted((f"clip_{key}" for key in clip.tokenize("")), key=lambda name: name != "clip_l"))


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
        if found != family.text_layout:
            raise MismatchedBackbone(f"a CLIP of {family.text_layout} for {family.name}", f"one of {found}", _REMEDY)
        self._clip, self._width, self._pooled_width = clip, width, pooled_width
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
        longest = math.lcm(*(text.tokens.shape[0] for text in found))
        pooled = [text.pooled for text in found if text.pooled is not None]
        return Conditioning(
            tokens=torch.stack([text.tokens.repeat(longest // text.tokens.shape[0], 1) for text in found]),
            pooled=torch.stack(pooled) if len(pooled) == len(found) else None,
            prompts=tuple(texts),
            spans=tuple(text.spans for text in found),
            text_tokens=tuple(text.text_tokens for text in found),
            lengths=tuple(text.tokens.shape[0] for text in found),
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
        spans, whole = self._spans(text)
        return _Text(tokens, None if pooled is None else pooled[0], spans, whole)

    def _check(self, what: str, got: int, expected: int | None) -> None:
        if expected is not None and got != expected:
            raise MismatchedBackbone(f"a CLIP whose {what} width is {expected}", f"one with {got}", _REMEDY)

    def _spans(self, text: str) -> tuple[dict[int, tuple[int, int]], tuple[int, int]]:
        """Token spans of the words of a text (split at white space, weights taken off), and of the whole text."""
        chunks = next(iter(self._clip.tokenize(text, return_word_ids=True).values()))
        length = len(chunks[0])
        places = [
            chunk * length + place
            for chunk, tokens in enumerate(chunks)
            for place, (_, _, word) in enumerate(tokens)
            if word != 0
        ]
        if not places:
            return {}, (1, 1)
        counts = [len(self._ids(word)) for word in _words(text)]
        whole = (places[0], places[-1] + 1)
        if sum(counts) != len(places):  # an embedding, or a tokenizer with rules of its own
            return {}, whole
        spans, first = {}, 0
        for number, count in enumerate(counts):
            if count:
                spans[number] = (places[first], places[first + count - 1] + 1)
            first += count
        return spans, whole

    def _ids(self, word: str) -> list[int]:
        tokenizer = next(part for part in vars(self._clip.tokenizer).values() if isinstance(part, sd1_clip.SDTokenizer))
        ids = tokenizer.tokenizer(word)["input_ids"]
        return ids[tokenizer.tokens_start : -1 if tokenizer.tokenizer_adds_end_token else None]


def _words(text: str) -> list[str]:
    parts = sd1_clip.token_weights(sd1_clip.escape_important(text), 1.0)
    return [word for part, _ in parts for word in sd1_clip.unescape_important(part).split()]
