"""Which tokens of a prompt are which word, for every kind of tokenizer and template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from comfy import sd1_clip

#: {word position: (first token, last token + 1)}, and the same for the whole text.
Spans: TypeAlias = "tuple[dict[int, tuple[int, int]], tuple[int, int]]"


def spans_of(clip: Any, text: str, encoder: str, length: int) -> Spans:
    """Token spans of the words of a text (split at white space, weights taken off), and of the whole text.

    Args:
        clip: The CLIP.
        text: The prompt.
        encoder: Whose tokens the first columns of the condition are.
        length: Columns of the condition. Where it has fewer than there are tokens, the encoder has cut off the
            beginning of its template.
    """
    tokens = _listed(clip, text, encoder)
    cut = max(0, len(tokens) - length)
    if encoder.removeprefix("clip_") in ("l", "g", "h"):
        words, whole = _each_by_itself(clip, text, tokens)
    else:
        words, whole = _one_by_one(clip, text, encoder, tokens)
    if whole[0] < cut:
        return {}, (1, 1)
    moved = {place: (first - cut, last - cut) for place, (first, last) in words.items()}
    return moved, (whole[0] - cut, whole[1] - cut)


def words_of(text: str) -> list[str]:
    """The words of a prompt without the weights' brackets."""
    parts = sd1_clip.token_weights(sd1_clip.escape_important(text), 1.0)
    return [word for part, _ in parts for word in sd1_clip.unescape_important(part).split()]


def _listed(clip: Any, text: str, encoder: str) -> list[tuple[Any, bool]]:
    """Every token, and whether it is one of a text: no start, end or padding."""
    chunks: Mapping[str, Sequence[Any]] = clip.tokenize(text, return_word_ids=True)
    return [(token, word != 0) for chunk in chunks[encoder.removeprefix("clip_")] for token, _, word in chunk]


def _each_by_itself(clip: Any, text: str, tokens: Sequence[tuple[Any, bool]]) -> Spans:
    """CLIP's tokens do not reach across words: as many for each as it has alone."""
    places = [place for place, (_, own) in enumerate(tokens) if own]
    if not places:
        return {}, (1, 1)
    counts = [len(_ids(clip, word)) for word in words_of(text)]
    whole = (places[0], places[-1] + 1)
    if sum(counts) != len(places):  # an embedding, or a tokenizer with rules of its own
        return {}, whole
    spans, first = {}, 0
    for number, count in enumerate(counts):
        if count:
            spans[number] = (places[first], places[first + count - 1] + 1)
        first += count
    return spans, whole


def _ids(clip: Any, word: str) -> list[int]:
    tokenizer = next(part for part in vars(clip.tokenizer).values() if isinstance(part, sd1_clip.SDTokenizer))
    ids = tokenizer.tokenizer(word)["input_ids"]
    return ids[tokenizer.tokens_start : -1 if tokenizer.tokenizer_adds_end_token else None]


def _one_by_one(clip: Any, text: str, encoder: str, tokens: Sequence[tuple[Any, bool]]) -> Spans:
    """Other tokenizers join a word with the space before it, inside a template: the text is told word by word."""
    nothing = _listed(clip, "", encoder)
    start = next((place for place, (a, b) in enumerate(zip(tokens, nothing, strict=False)) if a != b), len(nothing))
    before = sum(own for _, own in nothing)
    whole = (start, start + sum(own for _, own in tokens) - before)
    words, spans, last = text.split(), {}, start
    for number in range(len(words)):
        listed = _listed(clip, " ".join(words[: number + 1]), encoder)
        end = start + sum(own for _, own in listed) - before
        if end > last:
            spans[number] = (last, end)
            last = end
    if not words or last != whole[1]:
        return {}, whole if words else (1, 1)
    return spans, whole
