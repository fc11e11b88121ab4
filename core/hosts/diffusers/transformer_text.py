"""Texts through a pipeline's own ``encode_prompt``, for transformers, whose encoders are of several kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch

from ...backbone.adaptation import SoftPrompts, TextSpace
from ...backbone.contracts import Conditioning
from ...errors import BadInput, UnsupportedFamily

#: T5's tokens in a condition, by pipeline's family: as many as ComfyUI gives them.
_LENGTHS = {"sd3": 77, "flux": 256}


class TransformerText:
    """The text encoders of an SD3 or Flux pipeline.

    Args:
        pipeline: With ``encode_prompt``.
        family: The family's name.
        words_from: Whose tokens the condition begins with, in the words of the family.
    """

    def __init__(self, pipeline: Any, family: str, words_from: str) -> None:
        self._pipeline, self._family = pipeline, family
        self._tokenizer = pipeline.tokenizer_2 if words_from == "t5xxl" else pipeline.tokenizer

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Plain texts, a row each.

        Raises:
            BadInput: no texts.
        """
        texts = list(prompts)
        if isinstance(prompts, str) or not texts:
            raise BadInput("a list of at least one text", repr(prompts)[:80], "Give one text per row.")
        device = self._pipeline._execution_device
        more = {"do_classifier_free_guidance": False, "prompt_3": None} if self._family == "sd3" else {}
        with torch.no_grad():
            found = self._pipeline.encode_prompt(
                texts, prompt_2=None, device=device, max_sequence_length=_LENGTHS[self._family], **more
            )
        tokens, pooled = (found[0], found[2]) if self._family == "sd3" else (found[0], found[1])
        spans = tuple(self._spans(text) for text in texts)
        whole = tuple(
            (min(a for a, _ in words.values()), max(b for _, b in words.values())) if words else (0, 0)
            for words in spans
        )
        return Conditioning(tokens, pooled, tuple(texts), spans, whole, lengths=(tokens.shape[1],) * len(texts))

    def _spans(self, text: str) -> dict[int, tuple[int, int]]:
        """Tokens of each word (split at white space), by the tokenizer's own offsets; none where it tells none."""
        if not getattr(self._tokenizer, "is_fast", False):
            return {}
        places = self._tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        found: dict[int, tuple[int, int]] = {}
        end = 0
        for number, word in enumerate(text.split()):
            start = text.index(word, end)
            end = start + len(word)
            own = [place for place, (a, b) in enumerate(places) if a < b and a < end and b > start]
            if own:
                found[number] = (own[0], own[-1] + 1)
        return found

    # What only CLIP's encoders take -----------------------------------------------------------------------------------

    def spaces(self) -> Mapping[str, TextSpace]:
        """Refused."""
        self._refuse()

    def suffixes(self, words: Sequence[str], context: int) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Refused."""
        self._refuse()

    def start_token(self, name: str) -> int:
        """Refused."""
        self._refuse()

    def token_vectors(self, ids: Sequence[int], name: str) -> torch.Tensor:
        """Refused."""
        self._refuse()

    def token_ids(self, vectors: torch.Tensor, name: str) -> list[int | None]:
        """Refused."""
        self._refuse()

    def embed_soft(self, prompts: SoftPrompts) -> Conditioning:
        """Refused."""
        self._refuse()

    def features(self, prompts: Sequence[str]) -> torch.Tensor:
        """Refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UnsupportedFamily(
            "a U-Net (SD 1.x, SD 2.x, SDXL) with a text cross-attention to lay vectors and LoRA over",
            f"the transformer of {self._family}",
            "Use zero_shot or lgdm with this model.",
        )
