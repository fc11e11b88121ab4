"""Prompts whose first words are vectors, through the user's CLIP: ComfyUI takes vectors where token ids stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...backbone.adaptation import SoftPrompts, TextSpace, same_tokens
from ...backbone.contracts import Conditioning
from ...errors import BadInput


def text_spaces(clip: Any) -> dict[str, TextSpace]:
    """Width and length of each text encoder of a CLIP, by its letter."""
    return {name: TextSpace(_table(clip, name).shape[1], len(chunks[0])) for name, chunks in clip.tokenize("").items()}


def start_tokens(clip: Any) -> dict[str, int]:
    """The token that every text begins with, by encoder."""
    return {name: int(chunks[0][0][0]) for name, chunks in clip.tokenize("").items()}


def suffixes(clip: Any, words: Sequence[str], context: int) -> dict[str, tuple[tuple[int, ...], ...]]:
    """For each encoder and text the token ids after ``context`` vectors: words, end, padding.

    Raises:
        BadInput: nothing but white space, something that is no plain text, or too long a text.
    """
    found: dict[str, list[tuple[int, ...]]] = {}
    for text in words:
        if not isinstance(text, str) or not text.strip():
            raise BadInput("a word or more after the vectors", repr(text), "Write for example: Good Photo.")
        for name, chunks in clip.tokenize(text, return_word_ids=True, disable_weights=True).items():
            found.setdefault(name, []).append(_suffix(text, chunks, context))
    return {name: tuple(rows) for name, rows in found.items()}


def _suffix(text: str, chunks: Sequence[Sequence[tuple[Any, float, int]]], context: int) -> tuple[int, ...]:
    length, used = len(chunks[0]), sum(word != 0 for chunk in chunks for _, _, word in chunk)
    room = length - 2 - context
    if used > room:
        raise BadInput(f"a text of at most {room} tokens after {context} vectors", f"{used}: {text!r}", "Shorten it.")
    if not used:
        raise BadInput("a word that the text encoder knows", repr(text), "Write for example: Good Photo.")
    ids = [token for token, _, _ in chunks[0]]
    if any(isinstance(token, Tensor) for token in ids):
        raise BadInput("words only", repr(text), "Leave embeddings out of a scorer's prompts.")
    return tuple(int(token) for token in ids[1 : length - context])


def token_vectors(clip: Any, ids: Sequence[int], name: str) -> Tensor:
    """The encoder's vectors of these tokens [n, width], float32 on the CPU.

    Raises:
        BadInput: an id that the encoder does not know.
    """
    table = _table(clip, name)
    if not all(0 <= number < table.shape[0] for number in ids):
        raise BadInput(f"token ids from 0 to {table.shape[0] - 1}", str(list(ids))[:60], "The file may be damaged.")
    return table[torch.tensor(list(ids), dtype=torch.long, device=table.device)].detach().float().cpu()


def token_ids(clip: Any, vectors: Tensor, name: str) -> list[int | None]:
    """The token whose vector each row [n, width] is, up to rounding; ``None`` for one of no token."""
    return same_tokens(_table(clip, name), vectors)


def embed_soft(clip: Any, prompts: SoftPrompts) -> Conditioning:
    """Start token, vectors, suffix → what the cross-attention reads, a row per prompt.

    The encoder's own layer (CLIP Set Last Layer), LoRA and masks hold, as for the user's texts.
    """
    prompts.check(text_spaces(clip))
    start = start_tokens(clip)
    tokens, pooled = [], []
    with torch.set_grad_enabled(torch.is_grad_enabled() and not torch.is_inference_mode_enabled()):
        for row in range(len(prompts.texts)):
            listed = {
                name: [[(token, 1.0) for token in (first, *prompts.context[name], *prompts.suffix[name][row])]]
                for name, first in start.items()
            }
            with _masks(clip, start, masked=prompts.padding_mask):
                found = clip.encode_from_tokens(listed, return_pooled=True, return_dict=True)
            tokens.append(found["cond"][0])
            pooled.append(found.get("pooled_output"))
    known = [vector[0] for vector in pooled if vector is not None]
    length = tokens[0].shape[0]
    return Conditioning(
        tokens=torch.stack(tokens),
        pooled=torch.stack(known) if len(known) == len(tokens) else None,
        prompts=prompts.texts,
        lengths=(length,) * len(tokens),
    )


@contextmanager
def _masks(clip: Any, names: Iterable[str], *, masked: bool) -> Iterator[None]:
    """ComfyUI's own switch for masking padding in the text encoder, put back as it was."""
    encoders = [_encoder(clip, name) for name in names] if masked else []
    before = [encoder.enable_attention_masks for encoder in encoders]
    for encoder in encoders:
        encoder.enable_attention_masks = True
    try:
        yield
    finally:
        for encoder, was in zip(encoders, before, strict=True):
            encoder.enable_attention_masks = was


def _encoder(clip: Any, name: str) -> Any:
    return getattr(clip.cond_stage_model, f"clip_{name}")


def _table(clip: Any, name: str) -> Tensor:
    return _encoder(clip, name).transformer.get_input_embeddings().weight
