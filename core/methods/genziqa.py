"""genziqa: learned "good photo" and "bad photo" prompts against the image inside the denoiser's cross-attention.

Reimplemented after De, Mitra and Soundararajan, Generalized Image Quality Assessment using Prompt-Guided Latent
Diffusion Models, 2024 (arXiv 2406.04654), not by its authors. For each noise level

    raw = mean over layers, prompts, heads and tokens of log(mean over queries of exp(T · A)) / T
          + bias_weight · (rms(eps - eps_good) - rms(eps - eps_bad))

with A the raw attention logits; the score is offset + gain · (mean of raw over the levels). The published form sums
over queries, which adds ln(queries) / T; the mean takes that away exactly, so resolution does not change a score.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..backbone.schedule import sigma_of_timestep
from ..errors import BadInput
from ..heads.check import Wanted, check_head
from ..records import Score, ScoreBatch, ScoreSpec
from .genziqa_settings import GenzIQAOptions, GenzSettings
from .prompt_reader import PromptReader, Reading, ReadingPlan, attention_taps

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.adaptation import AdaptableBackbone
    from .contract import Images, Watch
    from .genziqa_head import GenzHead

_log = logging.getLogger(__name__)
_BLIND_TO = (
    "hands, faces, meaning, whether the picture fits its prompt, faults that vanish when the picture is resized, "
    "whatever the pictures that it was trained on did not show"
)
_RANKS = "its scores rank, without a scale"
_NO_BIAS = f"the head was trained with the noise-error bias, which is switched off: {_RANKS}"
_OTHER_LEVELS = f"noise levels at which the head's gain, offset and spread were not fitted: {_RANKS}"
_OTHER_SIZE = f"latents of another size than the head reads images at: {_RANKS}"
#: Sides within this share, or within one step of the latent grid, of those that the settings ask for are as good.
_SAME_SIZE = 0.04


class GenzIQA:
    """A trained GenzIQA head on the loaded model; a :class:`~.contract.Scorer`.

    Args:
        backbone: The loaded model; it needs its text encoder and VAE.
        head: Context, LoRA and settings.
        options: Levels, bias and the like.

    Raises:
        MismatchedBackbone: the head was made for another model.
        BadInput: a model without text cross-attention, or LoRA of a wrong rank.
    """

    def __init__(self, backbone: AdaptableBackbone, head: GenzHead, options: GenzIQAOptions | None = None) -> None:
        self._head, self._options, self._digest = head, options or GenzIQAOptions(), head.digest()
        taps = attention_taps(backbone.family.taps, None)
        fit = check_head(head, backbone, "prompts", Wanted(method="genziqa"), override=self._options.override)
        head.prompts.check(backbone.text_spaces())
        self._plain, self._backbone = backbone, backbone.adapted(head.lora)
        settings = head.settings
        weight = settings.bias_weight if self._options.bias else 0.0
        dropped = weight != settings.bias_weight
        self._weight = weight
        steps = self._timesteps = self._options.timesteps or settings.timesteps
        fitted = head.readout(steps)
        self._readout = fitted or head.own_readout
        choices = ((dropped, _NO_BIAS), (fitted is None, _OTHER_LEVELS))
        told = tuple(words for chosen, words in choices if chosen)
        # Centre and spread were measured with the bias, at fitted levels: elsewhere blends divide by nothing.
        self._measured = not told
        self._calibrated = fit.calibrated and not told
        self._warnings = (*fit.warnings, *told)
        plan = ReadingPlan(
            sigmas=tuple(sigma_of_timestep(t, backbone.family.prediction) for t in steps),
            seeds=tuple(settings.seed + t for t in steps),
            taps=tuple(tap for tap in taps if tap.name in head.taps),
            temperature=settings.temperature,
            noise=weight != 0.0,
            most_rows=self._options.most_rows,
            shape=lambda height, width: settings.shape(height, width, backbone.family),
            encode=settings.encode(backbone),
            whole=self._calibrated,
        )
        self._reader = PromptReader(self._backbone, plan, lambda: backbone.embed_soft(head.prompts))

    @property
    def backbone(self) -> AdaptableBackbone:
        """The model whose latents :meth:`score_latents` takes."""
        return self._plain

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of every score: what does not fit, and choices that took its scale."""
        return self._warnings

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean: 0 to 100 where the head was trained on ratings and fits this model."""
        meta, settings, plan = self._head.meta, self._head.settings, self._reader.plan
        return ScoreSpec(
            name="genziqa",
            scale=meta.scale if self._calibrated else None,
            calibrated_on=meta.calibrated_on if self._calibrated else None,
            centre=self._readout.centre if self._measured else 0.0,
            spread=self._readout.spread if self._measured else 1.0,
            needs=("image", "model", "clip", "vae", "head"),
            size_policy=settings.size_policy(self._plain.family),
            blind_to=_BLIND_TO,
            backbone=self._plain.fingerprint.to_text(),
            settings={
                **settings.to_dict(),
                "gain": self._readout.gain,
                "offset": self._readout.offset,
                "timesteps": list(self._timesteps),
                "bias_weight": self._weight,
                "sigmas": list(plan.sigmas),
                "taps": [tap.name for tap in plan.taps],
                "prompts": list(self._head.prompts.texts),
                "padding_mask": self._head.prompts.padding_mask,
                "head": {"trained_on": meta.training_set, "pictures": meta.pictures, "fingerprint": meta.fingerprint},
                "rank": self._head.lora.rank,
                "weights": self._digest,
                "identity": dict(self._plain.identity),
            },
        )

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """Score every image. ``prompts`` are not used; ``watch`` is called after every forward of the denoiser.

        Each score's attributes hold the raw value, its attention and bias, the values by level, and the size.
        """
        return self._batch(self._reader.read(images, prompts, watch))

    def score_latents(
        self, latents: Tensor, prompts: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> ScoreBatch:
        """As :meth:`score`, from latents [N, C, h, w] in the model's space, at their own size.

        Of another size than the head reads images at, they get numbers that only rank, and a warning.

        Raises:
            BadInput: a head whose images are encoded after CLIP's normalisation, so that nobody else's latents fit.
        """
        if self._head.settings.value_range == "clip":
            remedy = "Decode the latents and score the images."
            raise BadInput("images: this head normalises pixels as CLIP does before the VAE", "latents", remedy)
        readings = self._reader.read_latents(latents, prompts, watch)
        return self._batch(readings, () if self._as_asked(latents) else (_OTHER_SIZE,))

    def score_encoded(self, latents: Tensor) -> ScoreBatch:
        """As :meth:`score`, from latents [N, C, h, w] that the head's own settings made of images."""
        return self._batch(self._reader.read_latents(latents))

    def _as_asked(self, latents: Tensor) -> bool:
        """Whether latents have, nearly, the size at which an image of theirs would be read."""
        stride = self._plain.family.latent_stride
        height, width = latents.shape[2] * stride, latents.shape[3] * stride
        try:
            asked = self._head.settings.shape(height, width, self._plain.family)
        except BadInput:  # longer than any image may be
            return False
        pairs = zip((height, width), asked, strict=True)
        return all(abs(side - wanted) <= max(stride, _SAME_SIZE * wanted) for side, wanted in pairs)

    def held_bytes(self) -> Mapping[str, int]:
        """Bytes held beside the user's model now: ``lora``, and ``backup`` for originals of patched weights."""
        return self._backbone.held_bytes()

    def _batch(self, readings: Sequence[Reading | Score], told: tuple[str, ...] = ()) -> ScoreBatch:
        """Scores; what is ``told`` takes their scale."""
        held = self.held_bytes()
        _log.info("GenzIQA holds %d bytes of LoRA and %d of patched weights' originals.", held["lora"], held["backup"])
        spec = replace(self.spec, scale=None, calibrated_on=None) if told else self.spec
        scores = (self._one(place, found, spec.scale, told) for place, found in enumerate(readings))
        return ScoreBatch(spec, tuple(scores))

    def _one(
        self, place: int, found: Reading | Score, scale: tuple[float, float] | None, told: tuple[str, ...]
    ) -> Score:
        if isinstance(found, Score):
            return found
        gain, offset = self._readout.gain, self._readout.offset
        attention, bias = signals(found.answer, found.error, self._head.settings)
        raw = attention + self._weight * bias
        value = offset + gain * float(raw.mean())
        parts = {
            "raw": float(raw.mean()),
            "attention": float(attention.mean()),
            "bias": float(bias.mean()),
            "levels": [offset + gain * one for one in raw.tolist()],
        }
        attributes = {**found.attributes, **parts}
        warnings = [*self._warnings, *told, *attributes.get("warnings", ())]
        if warnings:
            attributes["warnings"] = warnings
        return Score.of(value if scale is None else min(max(value, scale[0]), scale[1]), place, attributes=attributes)


def signals(answer: Tensor, error: Tensor, settings: GenzSettings) -> tuple[Tensor, Tensor]:
    """[..., prompts = (good, bad), levels] → attention and bias [..., levels], both differentiable."""
    good, bad = answer[..., 0, :], answer[..., 1, :]
    attention = good - bad if settings.contrast else (good + bad) / 2
    return attention, error[..., 0, :] - error[..., 1, :]
