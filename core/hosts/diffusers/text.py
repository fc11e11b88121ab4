"""Texts through a pipeline's own text encoders, also with learnable vectors in place of the first words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...backbone.adaptation import SoftPrompts, TextSpace, same_tokens
from ...backbone.contracts import Conditioning
from ...backbone.lengths import together
from ...errors import BadInput, MismatchedBackbone


@dataclass(frozen=True, slots=True)
class _Encoder:
    """A tokenizer and its network; ``penultimate``: SDXL reads the last layer but one, without its norm."""

    tokenizer: Any
    network: Any
    penultimate: bool


class PipelineText:
    """The text encoders of a Stable Diffusion pipeline.

    Args:
        pipeline: With ``tokenizer`` and ``text_encoder``, SDXL's with a second pair.
        layout: The family's, such as ``clip_l+clip_g``.
    """

    def __init__(self, pipeline: Any, layout: str) -> None:
        names = [part.removeprefix("clip_") for part in layout.split("+")]
        pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
        if len(names) > 1:
            pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
        self._encoders = {
            name: _Encoder(tokenizer, network, len(names) > 1)
            for name, (tokenizer, network) in zip(names, pairs, strict=True)
        }

    def spaces(self) -> dict[str, TextSpace]:
        """The encoders' inputs, by letter."""
        return {
            name: TextSpace(self._table(name).shape[1], self._length(encoder))
            for name, encoder in self._encoders.items()
        }

    def start_token(self, name: str) -> int:
        """The token that every text begins with."""
        return int(self._encoders[name].tokenizer.bos_token_id)

    def suffixes(self, words: Sequence[str], context: int) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Token ids of each text after ``context`` vectors, for each encoder: words, end, padding.

        Raises:
            BadInput: nothing but white space, or more than fits after the vectors.
        """
        for text in words:
            if not isinstance(text, str) or not text.strip():
                raise BadInput("a word or more after the vectors", repr(text), "Write for example: Good Photo.")
        return {name: tuple(self._suffix(name, text, context) for text in words) for name in self._encoders}

    def _suffix(self, name: str, text: str, context: int) -> tuple[int, ...]:
        ids, room = self._ids(name, text), self._room(name) - context
        if len(ids) > room:
            expected = f"a text of at most {room} tokens after {context} vectors"
            raise BadInput(expected, f"{len(ids)}: {text!r}", "Shorten it.")
        return self._ended(name, ids, room)

    def _ids(self, name: str, text: str) -> list[int]:
        return list(map(int, self._encoders[name].tokenizer(text, add_special_tokens=False)["input_ids"]))

    def _room(self, name: str) -> int:
        """Tokens of a text between start and end."""
        return self._length(self._encoders[name]) - 2

    def _ended(self, name: str, ids: Sequence[int], room: int) -> tuple[int, ...]:
        tokenizer = self._encoders[name].tokenizer
        return (*ids, int(tokenizer.eos_token_id), *[int(tokenizer.pad_token_id)] * (room - len(ids)))

    def _parts(self, name: str, text: str) -> list[tuple[int, ...]]:
        """A text in as many pieces as its tokens fill, as ComfyUI cuts it."""
        ids, room = self._ids(name, text), self._room(name)
        return [self._ended(name, ids[first : first + room], room) for first in range(0, max(1, len(ids)), room)]

    def token_vectors(self, ids: Sequence[int], name: str) -> Tensor:
        """The encoder's vectors of these tokens [n, width], float32 on the CPU."""
        table = self._table(name)
        return table[torch.tensor(list(ids), dtype=torch.long, device=table.device)].detach().float().cpu()

    def token_ids(self, vectors: Tensor, name: str) -> list[int | None]:
        """The token whose vector each row [n, width] is, up to rounding; ``None`` for one of no token."""
        return same_tokens(self._table(name), vectors)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Plain texts, a row each. One with more tokens than the encoder takes is read in pieces, side by side.

        Raises:
            BadInput: no texts.
        """
        if isinstance(prompts, str) or not prompts:
            raise BadInput("a list of at least one text", repr(prompts)[:80], "Give one text per row.")
        parts = {name: [self._parts(name, text) for text in prompts] for name in self._encoders}
        counts = [min(len(pieces) for pieces in texts) for texts in zip(*parts.values(), strict=True)]
        rows = {
            name: tuple(piece for pieces, count in zip(texts, counts, strict=True) for piece in pieces[:count])
            for name, texts in parts.items()
        }
        empty = {name: self._table(name).new_zeros(0, space.width) for name, space in self.spaces().items()}
        repeated = tuple(text for text, count in zip(prompts, counts, strict=True) for _ in range(count))
        found = self.embed_soft(SoftPrompts(empty, rows, repeated))
        firsts = [sum(counts[:place]) for place in range(len(counts))]
        whole = [part.flatten(0, 1) for part in found.tokens.split(counts)]
        spans, own = zip(*(self._spans(text) for text in prompts), strict=True)
        return replace(
            found,
            tokens=together(whole),
            pooled=None if found.pooled is None else found.pooled[firsts],
            prompts=tuple(prompts),
            spans=spans,
            text_tokens=own,
            lengths=tuple(len(one) for one in whole),
        )

    def features(self, prompts: Sequence[str]) -> Tensor:
        """CLIP's projected text features, not normalised [N, W], float32 on the CPU.

        Raises:
            MismatchedBackbone: several encoders, or one without its projection.
        """
        remedy = "Use CLIPTextModelWithProjection of CLIP ViT-L/14 as the pipeline's text encoder."
        ((name, encoder),) = list(self._encoders.items())[:1]
        projection = getattr(encoder.network, "text_projection", None)
        if len(self._encoders) != 1 or projection is None:
            got = f"{len(self._encoders)} encoders, {'no' if projection is None else 'a'} projection"
            raise MismatchedBackbone("one CLIP with its text projection", got, remedy)
        rows = [[self.start_token(name), *self._suffix(name, text, 0)] for text in prompts]
        with torch.no_grad():
            return encoder.network(torch.tensor(rows, device=self._table(name).device)).text_embeds.float().cpu()

    def _spans(self, text: str) -> tuple[dict[int, tuple[int, int]], tuple[int, int]]:
        """Tokens of each word (split at white space) behind their piece's start token, and of the whole text."""
        name = next(iter(self._encoders))
        room, found, first = self._room(name), {}, 0

        def place(token: int) -> int:
            return 1 + token + 2 * (token // room)  # an end and a start between two pieces

        for number, word in enumerate(text.split()):
            count = len(self._ids(name, word))
            if count:
                found[number] = (place(first), place(first + count - 1) + 1)
            first += count
        return found, (1, place(first - 1) + 1 if first else 1)

    def embed_soft(self, prompts: SoftPrompts) -> Conditioning:
        """Start token, vectors, suffix → what the cross-attention reads; differentiable in the vectors."""
        prompts.check(self.spaces())
        found = {name: self._encode(name, prompts) for name in self._encoders}
        tokens = torch.cat([states for states, _ in found.values()], dim=-1)
        pooled = found["g"][1] if "g" in found else None
        return Conditioning(tokens, pooled, prompts.texts, lengths=(tokens.shape[1],) * len(tokens))

    def _encode(self, name: str, prompts: SoftPrompts) -> tuple[Tensor, Tensor | None]:
        encoder, device, context = self._encoders[name], self._table(name).device, prompts.context[name]
        start, fill = self.start_token(name), [0] * len(context)
        ids = torch.tensor([[start, *fill, *row] for row in prompts.suffix[name]], device=device)
        mask = _up_to(ids, int(encoder.tokenizer.eos_token_id), 1 + len(context)) if prompts.padding_mask else None
        with _in_place_of_tokens(self._embedding(name), context.to(device)):
            out = encoder.network(ids, attention_mask=mask, output_hidden_states=encoder.penultimate)
        if not encoder.penultimate:
            return out.last_hidden_state, None
        return out.hidden_states[-2], getattr(out, "text_embeds", None)

    def _embedding(self, name: str) -> torch.nn.Module:
        network = self._encoders[name].network
        inner = getattr(network, "text_model", network)  # transformers 5 has dropped one level
        return inner.embeddings.token_embedding

    def _table(self, name: str) -> Tensor:
        return self._embedding(name).weight  # pyright: ignore[reportReturnType]

    @staticmethod
    def _length(encoder: _Encoder) -> int:
        network: Mapping[str, Any] = encoder.network.config.to_dict()
        return int(network["max_position_embeddings"])


def _up_to(ids: Tensor, end: int, first: int) -> Tensor:
    """1 for the tokens up to a text's end, which lies at `first` or later, 0 for its padding [rows, length]."""
    ended = (ids[:, first:] == end).long().cumsum(1)
    padding = torch.cat([torch.zeros_like(ids[:, :first]), ended], dim=1).roll(1, dims=1)
    padding[:, 0] = 0
    return (padding == 0).long()


@contextmanager
def _in_place_of_tokens(embedding: torch.nn.Module, context: Tensor) -> Iterator[None]:
    """Vectors stand where the tokens after the first one came out of the table."""

    def put(module: torch.nn.Module, args: Any, out: Tensor) -> Tensor:
        vectors = context.to(out.device, out.dtype).expand(len(out), -1, -1)
        return torch.cat([out[:, :1], vectors, out[:, 1 + len(context) :]], dim=1)

    hook = embedding.register_forward_hook(put)
    try:
        yield
    finally:
        hook.remove()
