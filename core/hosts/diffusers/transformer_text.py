"""Texts through a pipeline's own ``encode_prompt``, for transformers, whose encoders are of several kinds."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from ...backbone.adaptation import SoftPrompts, TextSpace
from ...backbone.contracts import Conditioning
from ...backbone.lengths import together
from ...errors import BadInput, UnsupportedFamily

logger = logging.getLogger(__name__)

#: Tokens in a condition, by family: T5's as many as ComfyUI gives them; Flux.1's more for longer texts, up to these.
_LENGTHS = {"sd3": 77, "flux": 256, "wan21": 512}
_FLUX_MOST = 512
#: CLIP's, before T5's in SD3's conditions.
_CLIP_TOKENS = 77
#: Stands for a text, to find where a template puts it.
_MARK = "\ue000"


@dataclass(frozen=True, slots=True)
class _LanguageModel:
    """How a language model's hidden states become a condition.

    Attributes:
        layers: Which of them, side by side; negative ones are counted from the last.
        length: Tokens at most.
        filled: Whether shorter texts are filled up to that length, as ComfyUI does.
        thinking: Whether the chat template leaves room to think.
    """

    layers: tuple[int, ...]
    length: int
    filled: bool = False
    thinking: bool = True


_LANGUAGE_MODELS = {
    "lumina2": _LanguageModel((-2,), 256),
    "zimage": _LanguageModel((-2,), 512),
    "qwen_image": _LanguageModel((-1,), 1024),
}
#: Flux.2's, by their configuration: dev has Mistral 3, klein Qwen 3.
_FLUX2 = {
    "mistral3": _LanguageModel((10, 20, 30), 512),
    "qwen3": _LanguageModel((9, 18, 27), 512, filled=True, thinking=False),
}


class TransformerText:
    """The text encoders of a pipeline with a transformer.

    Args:
        pipeline: With ``encode_prompt``.
        family: The family's name.
        words_from: Whose tokens the condition begins with, in the words of the family.

    Raises:
        UnsupportedFamily: Flux.2 with another language model than dev's or klein's.
    """

    def __init__(self, pipeline: Any, family: str, words_from: str) -> None:
        self._pipeline, self._family = pipeline, family
        tokenizer = pipeline.tokenizer_2 if words_from == "t5xxl" else pipeline.tokenizer
        self._tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor of pictures has one inside
        self._reads = _flux2(pipeline.text_encoder) if family == "flux2" else _LANGUAGE_MODELS.get(family)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Plain texts, a row each.

        Raises:
            BadInput: no texts.
        """
        texts = list(prompts)
        if isinstance(prompts, str) or not texts:
            raise BadInput("a list of at least one text", repr(prompts)[:80], "Give one text per row.")
        with torch.no_grad():
            if self._reads is not None:
                return self._by_language_model(texts, self._reads)
            rows = self._wan(texts) if self._family == "wan21" else self._encoded(texts)
        tokens = [row for row, _ in rows]
        pooled = [vector for _, vector in rows if vector is not None]
        lengths = tuple(map(len, tokens))
        # CLIP's come first in SD3's conditions; the last of the tokens ends the text.
        ends = [(_CLIP_TOKENS if self._family == "sd3" else length) - 1 for length in lengths]
        spans = tuple(_inside(self._spans(text, text), text, end) for text, end in zip(texts, ends, strict=True))
        return Conditioning(
            together(tokens), torch.stack(pooled) if pooled else None, tuple(texts), spans, _whole(spans), lengths
        )

    def _encoded(self, texts: list[str]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Tokens [T, width] and pooled text [width] of each."""
        lengths = [self._tokens_of(text) for text in texts]
        found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for length in sorted(set(lengths)):
            rows = [row for row, own in enumerate(lengths) if own == length]
            parts = self._of_length([texts[row] for row in rows], length)
            found |= dict(zip(rows, zip(*parts, strict=True), strict=True))
        return [found[row] for row in range(len(texts))]

    def _tokens_of(self, text: str) -> int:
        """T5's tokens in a condition."""
        least = _LENGTHS[self._family]
        return least if self._family == "sd3" else min(_FLUX_MOST, max(least, len(self._tokenizer(text)["input_ids"])))

    def _of_length(self, texts: list[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and pooled texts, as the pipeline makes them."""
        more = {"do_classifier_free_guidance": False, "prompt_3": None} if self._family == "sd3" else {}
        device = self._pipeline._execution_device
        found = self._pipeline.encode_prompt(texts, prompt_2=None, device=device, max_sequence_length=length, **more)
        if self._family != "sd3":
            return found[0], found[1]
        # Without T5 the pipeline puts zeros in its place, ComfyUI nothing.
        without = getattr(self._pipeline, "text_encoder_3", None) is None
        return found[0][:, :_CLIP_TOKENS] if without else found[0], found[2]

    def _wan(self, texts: list[str]) -> list[tuple[torch.Tensor, None]]:
        """As WanPipeline does, without its repair of broken unicode, which needs another package: zeros behind."""
        made = self._tokenizer(
            texts, padding="max_length", max_length=_LENGTHS["wan21"], truncation=True, return_tensors="pt"
        )
        device, encoder = self._pipeline._execution_device, self._pipeline.text_encoder
        mask = made.attention_mask.to(device)
        states = encoder(made.input_ids.to(device), mask).last_hidden_state
        return [(row, None) for row in states * mask.unsqueeze(-1).to(states)]

    def _by_language_model(self, texts: list[str], reads: _LanguageModel) -> Conditioning:
        """Every text by itself, inside the pipeline's template, whose beginning Qwen-Image drops."""
        drop = self._pipeline.prompt_template_encode_start_idx if self._family == "qwen_image" else 0
        found, spans = [], []
        for text in texts:
            told = self._templated(text, reads)
            found.append(self._states(told, reads, reads.length + drop)[drop:])
            begins = self._templated(_MARK, reads).index(_MARK)
            words = {word: (a - drop, b - drop) for word, (a, b) in self._spans(text, told, begins).items()}
            spans.append(_inside(words, text, len(found[-1])))
        lengths = tuple(len(states) for states in found)
        return Conditioning(together(found), None, tuple(texts), tuple(spans), _whole(spans), lengths=lengths)

    def _states(self, told: str, reads: _LanguageModel, most: int) -> torch.Tensor:
        """Hidden states [T, width] of a text in its template, at most so many."""
        device, encoder = self._pipeline._execution_device, self._pipeline.text_encoder
        filling = {"padding": "max_length", "padding_side": "right"} if reads.filled else {}
        made = self._tokenizer(
            told, max_length=most, truncation=True, return_tensors="pt", **self._begun(told), **filling
        ).to(device)
        # A model that also writes would give every token's chance at every place.
        more = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(encoder.forward).parameters else {}
        asked = {"attention_mask": made.attention_mask, "output_hidden_states": True, "use_cache": False}
        states = encoder(made.input_ids, **asked, **more).hidden_states
        return torch.cat([states[layer][0] for layer in reads.layers], dim=-1)

    def _begun(self, told: str) -> dict[str, bool]:
        """A template that begins with the start token needs none from the tokenizer."""
        start = getattr(self._tokenizer, "bos_token", None)
        return {"add_special_tokens": False} if start and told.startswith(start) else {}

    def _templated(self, text: str, reads: _LanguageModel) -> str:
        """Most are told as to a chat model; Lumina 2 gets the plain text, as in ComfyUI without its system prompts."""
        if self._family == "qwen_image":
            return self._pipeline.prompt_template_encode.format(text)
        if self._family == "lumina2":
            return text
        system = getattr(self._pipeline, "system_message", None)
        if system is None:
            message = [{"role": "user", "content": text}]
            more = {"add_generation_prompt": True, "enable_thinking": reads.thinking}
        else:
            parts = (("system", system), ("user", text.replace("[IMG]", "")))  # that token stands for a picture
            message = [{"role": role, "content": [{"type": "text", "text": part}]} for role, part in parts]
            more = {"add_generation_prompt": False}
        return self._pipeline.tokenizer.apply_chat_template(message, tokenize=False, **more)

    def _spans(self, text: str, told: str, begins: int = 0) -> dict[int, tuple[int, int]]:
        """Tokens of each word (split at white space), by the tokenizer's own offsets; none where it tells none.

        A token of white space alone belongs to the word after it, as a space inside a token does.

        Args:
            text: What the user wrote.
            told: What the tokenizer gets, with the text in it.
            begins: Where in it.
        """
        if not getattr(self._tokenizer, "is_fast", False):
            return {}
        places = self._tokenizer(told, return_offsets_mapping=True, **self._begun(told))["offset_mapping"]
        found: dict[int, tuple[int, int]] = {}
        end = begins
        for number, word in enumerate(text.split()):
            start = told.find(word, end)
            if start < 0:
                continue  # what a template leaves out
            first, end = end if found else start, start + len(word)
            own = [place for place, (a, b) in enumerate(places) if a < b and a < end and b > first]
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


def _inside(words: Mapping[int, tuple[int, int]], text: str, length: int) -> dict[int, tuple[int, int]]:
    """The words whose tokens the encoder has seen; a text that was cut is told in the log."""
    found = {word: span for word, span in words.items() if span[1] <= length}
    if len(found) < len(words):
        logger.warning("A text of %d words is cut after %d: %r …", len(words), len(found), text[:40])
    return found


def _whole(spans: Sequence[Mapping[int, tuple[int, int]]]) -> tuple[tuple[int, int], ...]:
    """First and last token of each text."""
    return tuple(
        (min(a for a, _ in words.values()), max(b for _, b in words.values())) if words else (0, 0) for words in spans
    )


def _flux2(encoder: Any) -> _LanguageModel:
    kind = str(getattr(encoder.config, "model_type", type(encoder).__name__))
    if kind not in _FLUX2:
        remedy = "Load the pipeline with its own text encoder, or hand in conditions."
        raise UnsupportedFamily(f"Flux.2 with one of {', '.join(_FLUX2)}", f"with {kind}", remedy)
    return _FLUX2[kind]
