"""Texts through a pipeline's own ``encode_prompt``, for transformers, whose encoders are of several kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch

from ...backbone.adaptation import SoftPrompts, TextSpace
from ...backbone.contracts import Conditioning
from ...errors import BadInput, UnsupportedFamily

#: Tokens in a condition, by family: T5's as many as ComfyUI gives them, a language model's at most so many.
_LENGTHS = {"sd3": 77, "flux": 256, "wan21": 512, "lumina2": 256, "zimage": 512, "qwen_image": 1024}
#: Which hidden states are the condition, counted from the last.
_LANGUAGE_MODELS = {"lumina2": -2, "zimage": -2, "qwen_image": -1}


class TransformerText:
    """The text encoders of a pipeline with a transformer.

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
        with torch.no_grad():
            if self._family in _LANGUAGE_MODELS:
                return self._by_language_model(texts)
            tokens, pooled = self._wan(texts) if self._family == "wan21" else self._encoded(texts)
        spans = tuple(self._spans(text, text) for text in texts)
        return Conditioning(tokens, pooled, tuple(texts), spans, _whole(spans), lengths=(tokens.shape[1],) * len(texts))

    def _encoded(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and pooled text, as the pipeline makes them."""
        more = {"do_classifier_free_guidance": False, "prompt_3": None} if self._family == "sd3" else {}
        device = self._pipeline._execution_device
        found = self._pipeline.encode_prompt(
            texts, prompt_2=None, device=device, max_sequence_length=_LENGTHS[self._family], **more
        )
        return (found[0], found[2]) if self._family == "sd3" else (found[0], found[1])

    def _wan(self, texts: list[str]) -> tuple[torch.Tensor, None]:
        """As WanPipeline does, without its repair of broken unicode, which needs another package: zeros behind."""
        made = self._tokenizer(
            texts, padding="max_length", max_length=_LENGTHS["wan21"], truncation=True, return_tensors="pt"
        )
        device, encoder = self._pipeline._execution_device, self._pipeline.text_encoder
        mask = made.attention_mask.to(device)
        states = encoder(made.input_ids.to(device), mask).last_hidden_state
        return states * mask.unsqueeze(-1).to(states), None

    def _by_language_model(self, texts: list[str]) -> Conditioning:
        """Every text by itself, inside the pipeline's template, whose beginning Qwen-Image drops."""
        device, encoder = self._pipeline._execution_device, self._pipeline.text_encoder
        drop = self._pipeline.prompt_template_encode_start_idx if self._family == "qwen_image" else 0
        most, found, spans = _LENGTHS[self._family] + drop, [], []
        for text in texts:
            told = self._templated(text)
            made = self._tokenizer(told, max_length=most, truncation=True, return_tensors="pt").to(device)
            states = encoder(made.input_ids, attention_mask=made.attention_mask, output_hidden_states=True)
            found.append(states.hidden_states[_LANGUAGE_MODELS[self._family]][0, drop:])
            words = {word: (a - drop, b - drop) for word, (a, b) in self._spans(text, told).items()}
            spans.append({word: span for word, span in words.items() if span[1] <= len(found[-1])})
        lengths = tuple(len(states) for states in found)
        places = [[place % length for place in range(max(lengths))] for length in lengths]
        tokens = torch.stack([states[where] for states, where in zip(found, places, strict=True)])
        return Conditioning(tokens, None, tuple(texts), tuple(spans), _whole(spans), lengths=lengths)

    def _templated(self, text: str) -> str:
        """Z-Image speaks to a chat model; Lumina 2 gets the plain text, as in ComfyUI without its system prompts."""
        if self._family == "qwen_image":
            return self._pipeline.prompt_template_encode.format(text)
        if self._family == "lumina2":
            return text
        message = [{"role": "user", "content": text}]
        return self._tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, enable_thinking=True
        )

    def _spans(self, text: str, told: str) -> dict[int, tuple[int, int]]:
        """Tokens of each word (split at white space), by the tokenizer's own offsets; none where it tells none.

        Args:
            text: What the user wrote.
            told: What the tokenizer gets, with the text in it.
        """
        if not getattr(self._tokenizer, "is_fast", False):
            return {}
        places = self._tokenizer(told, return_offsets_mapping=True)["offset_mapping"]
        found: dict[int, tuple[int, int]] = {}
        end = told.index(text)
        for number, word in enumerate(text.split()):
            start = told.index(word, end)
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


def _whole(spans: Sequence[Mapping[int, tuple[int, int]]]) -> tuple[tuple[int, int], ...]:
    """First and last token of each text."""
    return tuple(
        (min(a for a, _ in words.values()), max(b for _, b in words.values())) if words else (0, 0) for words in spans
    )
