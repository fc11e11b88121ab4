"""A GenzIQA head: the learned context, LoRA on the text cross-attention, and how to read the score."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ..backbone.adaptation import PARTS, CrossLora, SoftPrompts
from ..backbone.schedule import sigma_of_timestep
from ..errors import BadInput, MismatchedBackbone
from ..heads.check import Wanted, check_head
from ..heads.head import HeadMeta
from ..heads.layout import Layout
from .genziqa_settings import WORDS, GenzSettings
from .prompt_reader import attention_taps

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.adaptation import AdaptableBackbone

#: Published: vectors of the context, and rank of the LoRA.
CONTEXT, RANK = 16, 4
#: Published: deviation of the context's first values.
_DEVIATION = 0.02
REDUCER = "log_sum_exp"


@dataclass(frozen=True, slots=True)
class LevelReadout:
    """How raw values averaged over certain noise levels become scores, and where those scores lie.

    Attributes:
        gain: Score units per unit of the raw signal.
        offset: Score of raw signal 0.
        centre: Mean score over pictures trained on.
        spread: Standard deviation of those scores.
    """

    gain: float
    offset: float
    centre: float
    spread: float


@dataclass(frozen=True, slots=True)
class GenzHead:
    """All that training changes, and what is known of it.

    Attributes:
        meta: As of every head; its kind is ``prompts``, its ``settings`` are :attr:`settings` as plain types.
        prompts: Two soft prompts: good, bad.
        lora: On q, k, v and out of the text cross-attention; may be empty.
        settings: How an image is read.
        taps: Attention taps that are read.
    """

    meta: HeadMeta
    prompts: SoftPrompts
    lora: CrossLora
    settings: GenzSettings
    taps: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.prompts.texts) != 2:
            raise BadInput("two prompts, good and bad", str(len(self.prompts.texts)), "The file may be damaged.")

    @property
    def layout(self) -> Layout:
        """Which taps and reducer it reads, in the words of the other heads."""
        return Layout.of((tap, 0, REDUCER, "whole", 1) for tap in self.taps)

    def digest(self) -> str:
        """16 hex digits that tell these vectors and this LoRA from others."""
        found = hashlib.sha256()
        for name, vectors in sorted(self.prompts.context.items()):
            found.update(f"{name} {self.prompts.suffix[name]}".encode())
            found.update(_raw(vectors))
        if self.prompts.padding_mask:
            found.update(b"padding mask")
        for where, pair in sorted(self.lora.layers.items()):
            found.update(f"{where} {self.lora.alpha}".encode())
            found.update(b"".join(map(_raw, pair)))
        return found.hexdigest()[:16]

    def readout(self, timesteps: Sequence[int]) -> LevelReadout | None:
        """Gain, offset, centre and spread that were fitted at these noise levels; ``None`` where none were."""
        if sorted(timesteps) == sorted(self.settings.timesteps):
            return self.own_readout
        for told in self.meta.settings.get("readouts", ()):
            if sorted(told["timesteps"]) == sorted(timesteps):
                return LevelReadout(*(float(told[name]) for name in ("gain", "offset", "centre", "spread")))
        return None

    @property
    def own_readout(self) -> LevelReadout:
        """At the head's own noise levels."""
        return LevelReadout(self.settings.gain, self.settings.offset, self.meta.centre, self.meta.spread)

    def with_settings(self, **changes: Any) -> GenzHead:
        """The same head read in another way."""
        settings = replace(self.settings, **changes)
        return replace(self, settings=settings, meta=replace(self.meta, settings=settings.to_dict()))


def _raw(values: Tensor) -> bytes:
    return values.detach().float().cpu().contiguous().numpy().tobytes()


def fresh_context(backbone: AdaptableBackbone, count: int, seed: int) -> dict[str, Tensor]:
    """Context vectors before training: normal, deviation .02 (published)."""
    generator = torch.Generator().manual_seed(seed)
    spaces = sorted(backbone.text_spaces().items())
    return {name: _DEVIATION * torch.randn(count, space.width, generator=generator) for name, space in spaces}


def fresh_lora(backbone: AdaptableBackbone, taps: Sequence[str], rank: int, seed: int) -> CrossLora:
    """LoRA before training: down normal with deviation 1/rank, up zero, so that nothing is changed yet."""
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for (tap, part), (rows, columns) in backbone.cross_shapes().items():
        if tap in taps and part in PARTS:
            layers[(tap, part)] = (torch.randn(rank, columns, generator=generator) / rank, torch.zeros(rows, rank))
    return CrossLora(layers)


def untrained(
    backbone: AdaptableBackbone,
    settings: GenzSettings | None = None,
    *,
    words: Sequence[str] = WORDS,
    context: int = CONTEXT,
    rank: int = RANK,
    seed: int = 0,
    padding_mask: bool = False,
) -> GenzHead:
    """A head as training begins with it. Its scores are uncalibrated and mean nothing yet.

    Args:
        backbone: The model that it is for.
        settings: How images are read.
        words: What follows the context: good, bad.
        context: Vectors; 0 for the words alone.
        rank: Of the LoRA; 0 for none.
        seed: Draws context and LoRA.
        padding_mask: Published: the text encoder's padding is masked.

    Raises:
        BadInput: texts that do not fit, or a rank or context below 0.
    """
    if context < 0 or rank < 0 or len(words) != 2:
        raise BadInput("two texts, context ≥ 0, rank ≥ 0", f"{words}, {context}, {rank}", "Published: 16 and 4.")
    settings, family = settings or GenzSettings(), backbone.family
    taps = tuple(tap.name for tap in attention_taps(family.taps, None))
    vectors, suffixes = fresh_context(backbone, context, seed), backbone.suffixes(words, context)
    prompts = SoftPrompts(vectors, suffixes, tuple(words), padding_mask)
    lora = fresh_lora(backbone, taps, rank, seed) if rank else CrossLora()
    return GenzHead(base_meta(backbone, settings, words), prompts, lora, settings, taps)


def base_meta(backbone: AdaptableBackbone, settings: GenzSettings, words: Sequence[str]) -> HeadMeta:
    """What is known of a head before it is trained on anything."""
    family = backbone.family
    return HeadMeta(
        method="genziqa",
        kind="prompts",
        family=family.name,
        fingerprint=backbone.fingerprint.to_text(),
        sigmas=tuple(sigma_of_timestep(t, family.prediction) for t in settings.timesteps),
        prompt=" | ".join(words),
        size_policy=settings.size_policy(family),
        training_set="none",
        pictures=0,
        settings=settings.to_dict(),
        identity=dict(backbone.identity),
    )


def stamped(head: GenzHead, backbone: AdaptableBackbone) -> tuple[GenzHead, list[str]]:
    """A head with what its file does not say of its model's text encoder and VAE, and the names of that.

    Args:
        head: Of any version.
        backbone: The model that it was trained on.

    Raises:
        MismatchedBackbone: the model is another one, or one of the parts that the head does know is.
    """
    fit = check_head(head, backbone, "prompts", Wanted(method="genziqa"))
    known, found = head.meta.identity, backbone.identity
    if fit.warnings:
        raise MismatchedBackbone("the model that the head was trained on", fit.warnings[0], "Name that very model.")
    new = sorted(set(found) - set(known))
    return replace(head, meta=replace(head.meta, identity={**known, **{name: found[name] for name in new}})), new
