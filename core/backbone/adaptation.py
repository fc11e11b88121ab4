"""What a trained scorer may lay over a loaded model without changing it: learnable text vectors, and LoRA on the text
cross-attention. Host-independent: places are named by taps, encoders by the letters of the text layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from ..errors import BadInput, MismatchedBackbone
from .contracts import Backbone, Conditioning

if TYPE_CHECKING:
    from torch import Tensor

Part = Literal["q", "k", "v", "out"]
PARTS: tuple[Part, ...] = ("q", "k", "v", "out")
#: Attention tap and matrix.
Where: TypeAlias = "tuple[str, Part]"
#: Relative distance of two copies of one token vector, one of which may have been rounded to bf16.
_SAME_VECTOR = 1e-2


@dataclass(frozen=True, slots=True)
class TextSpace:
    """The input of one text encoder.

    Attributes:
        width: Of a token's vector.
        length: Tokens in a text, start and end included.
    """

    width: int
    length: int


@dataclass(frozen=True, slots=True)
class SoftPrompts:
    """Prompts whose first words are vectors: [start] [context vectors] [suffix], one row per prompt.

    Attributes:
        context: For each text encoder (``l``, ``h``, ``g``) the shared vectors [N, width].
        suffix: For each text encoder the token ids that follow [rows, length - 1 - N]: words, end, padding.
        texts: The words, for the reader.
        padding_mask: Whether the text encoder's padding, the tokens after a text's end, is looked at by none of its
            tokens, beside its causal mask (published). Texts as the hosts encode them have no such mask.
    """

    context: Mapping[str, Tensor]
    suffix: Mapping[str, tuple[tuple[int, ...], ...]]
    texts: tuple[str, ...]
    padding_mask: bool = False

    def check(self, spaces: Mapping[str, TextSpace]) -> None:
        """Whether a model's text encoders can take them.

        Raises:
            MismatchedBackbone: other encoders, another width, or another length.
        """
        if set(self.context) != set(spaces) or set(self.suffix) != set(spaces):
            raise MismatchedBackbone(
                f"a context for the text encoders {', '.join(sorted(spaces))}",
                f"one for {', '.join(sorted(self.context)) or 'none'}",
                "Use a head that was made for this family.",
            )
        for name, space in spaces.items():
            vectors, rows = self.context[name], self.suffix[name]
            total = {1 + vectors.shape[0] + len(row) for row in rows}
            if vectors.ndim != 2 or vectors.shape[1] != space.width or total != {space.length}:
                raise MismatchedBackbone(
                    f"context vectors [N, {space.width}] and suffixes that make {space.length} tokens",
                    f"vectors {list(vectors.shape)} and {sorted(total)} tokens",
                    "Use a head that was made for this family.",
                )


@dataclass(frozen=True, slots=True)
class CrossLora:
    """Low-rank changes of the text cross-attention: W + (alpha / rank) * up @ down.

    Attributes:
        layers: For each tap and matrix, down [rank, in] and up [out, rank].
        alpha: As above; the rank itself when left out, so that the factor is 1.
    """

    layers: Mapping[Where, tuple[Tensor, Tensor]] = field(default_factory=dict)
    alpha: float | None = None

    @property
    def rank(self) -> int:
        """The rank of every matrix; 0 without any."""
        return max((down.shape[0] for down, _ in self.layers.values()), default=0)

    @property
    def bytes(self) -> int:
        """Bytes of the low-rank matrices themselves."""
        return sum(part.numel() * part.element_size() for pair in self.layers.values() for part in pair)

    def check(self, shapes: Mapping[Where, tuple[int, int]]) -> None:
        """Whether a model's matrices (out, in) can take them, all of one rank.

        Raises:
            MismatchedBackbone: a layer that the model does not have, or another size.
            BadInput: ranks that differ or do not fit each other.
        """
        unknown = [where for where in self.layers if where not in shapes]
        if unknown:
            raise MismatchedBackbone(
                f"LoRA on the text cross-attention of this model ({len(shapes)} matrices)",
                f"one on {_named(unknown[0])} and {len(unknown) - 1} more that it does not have",
                "Use a head that was made for this family.",
            )
        for where, (down, up) in self.layers.items():
            rows, columns = shapes[where]
            if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1] or down.shape[0] != self.rank:
                raise BadInput(
                    f"LoRA matrices [{self.rank}, in] and [out, {self.rank}] on {_named(where)}",
                    f"{list(down.shape)} and {list(up.shape)}",
                    "All layers share one rank; the file may be damaged.",
                )
            if (up.shape[0], down.shape[1]) != (rows, columns):
                raise MismatchedBackbone(
                    f"LoRA for a matrix {rows}×{columns} on {_named(where)}",
                    f"one for {up.shape[0]}×{down.shape[1]}",
                    "Use a head that was made for this family.",
                )


def _named(where: Where) -> str:
    return f"{where[0]} {where[1]}"


def same_tokens(table: Tensor, vectors: Tensor) -> list[int | None]:
    """The row of a token table [tokens, width] that each vector [n, width] is, up to half-precision rounding.

    ``None`` for a vector that is no token's.
    """
    rows, back = vectors.detach().to(table.device).float().unique(dim=0, return_inverse=True)
    found: list[int | None] = []
    for row in rows:
        apart = (table.detach().float() - row).square().sum(1)
        near = int(apart.argmin())
        same = float(apart[near]) <= _SAME_VECTOR**2 * float(row.square().sum())
        found.append(near if same else None)
    return [found[place] for place in back.tolist()]


class AdaptableBackbone(Backbone, Protocol):
    """A backbone over which text vectors and LoRA can be laid."""

    def text_spaces(self) -> Mapping[str, TextSpace]:
        """The text encoders' inputs, by letter."""
        ...

    def suffixes(self, words: Sequence[str], context: int) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Token ids of each text after ``context`` vectors, for each encoder: words, end, padding.

        Raises:
            BadInput: nothing but white space, or more than fits after the vectors.
        """
        ...

    def start_token(self, encoder: str) -> int:
        """The token that every text begins with."""
        ...

    def token_vectors(self, ids: Sequence[int], encoder: str) -> Tensor:
        """The encoder's own vectors of these tokens [n, width], float32 on the CPU."""
        ...

    def token_ids(self, vectors: Tensor, encoder: str) -> list[int | None]:
        """The token whose vector each row [n, width] is, up to rounding; ``None`` for one of no token."""
        ...

    def embed_soft(self, prompts: SoftPrompts) -> Conditioning:
        """Through the host's own text encoder, with its own masks and layer."""
        ...

    def cross_shapes(self) -> Mapping[Where, tuple[int, int]]:
        """(out, in) of every matrix of the text cross-attention."""
        ...

    def adapted(self, change: CrossLora) -> AdaptableBackbone:
        """The same model with LoRA over it, beside whatever LoRA it has; this backbone stays as it is."""
        ...

    def held_bytes(self) -> Mapping[str, int]:
        """Bytes that :meth:`adapted` holds now: ``lora`` its matrices, ``backup`` originals kept of patched weights."""
        ...
