"""The words of a prompt and what an image answers to each: spans, names, numbers and maps."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..records import Score

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Conditioning

_BROKEN = "the attention held NaN or infinite values (half precision overflowed: try bf16 or fp32)"
_SILENT = (
    "not every cross-attention layer could be read: packs that cache steps, merge tokens or compile the model skip "
    "them. Score with the model before such a node"
)
#: Weights and brackets of ComfyUI's prompts, which are no words.
_WEIGHTS = re.compile(r":\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*\)|(?<!\\)[()]")
_LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class Aligned:
    """One image and its prompt.

    Attributes:
        words: As they stand in the prompt.
        values: Each word's number.
        maps: Each word's map [words, h, w] float32 on the CPU, on the grid of the finest cross-attention.
        size: Height and width in pixels at which the image was read.
    """

    words: tuple[str, ...]
    values: tuple[float, ...]
    maps: Tensor
    size: tuple[int, int]

    @property
    def value(self) -> float:
        """The mean over the words."""
        return math.fsum(self.values) / len(self.values)

    def score(self, place: int) -> Score:
        """As a score: the value, and every word's number in the attributes."""
        words = [{"word": word, "value": value} for word, value in zip(self.words, self.values, strict=True)]
        attributes = {"height": self.size[0], "width": self.size[1], "words": words}
        return Score.of(self.value, place, attributes=attributes)


def aligned(seen: Tensor | None, nothing: Tensor | None) -> tuple[tuple[float, ...], Tensor] | str:
    """Mean probabilities of each word with the image and with nothing [words, h, w] → numbers and maps, or why not."""
    if seen is None or nothing is None:
        return _SILENT
    if not bool(seen.isfinite().all() and nothing.isfinite().all()):
        return _BROKEN
    maps = (seen.clamp_min(_LEAST) / nothing.clamp_min(_LEAST)).log()
    values = (seen.mean((1, 2)).clamp_min(_LEAST) / nothing.mean((1, 2)).clamp_min(_LEAST)).log()
    return tuple(map(float, values)), maps


def spans(texts: Conditioning, row: int) -> dict[int, tuple[int, int]]:
    """Token spans of the words; the whole text where the host cannot tell words apart; none without text."""
    found = dict(texts.spans[row]) if texts.spans else {}
    if not found and texts.text_tokens and texts.text_tokens[row][0] < texts.text_tokens[row][1]:
        found = {0: texts.text_tokens[row]}
    return found


def word_names(texts: Conditioning, row: int) -> tuple[str, ...]:
    """The words that the spans of a row stand for."""
    text, places = texts.prompts[row], list(spans(texts, row))
    words = _WEIGHTS.sub(" ", text).split()
    if not (texts.spans and texts.spans[row]) or max(places) >= len(words):
        return (text.strip(),) if len(places) == 1 else tuple(f"word {place + 1}" for place in places)
    return tuple(words[place] for place in places)
