"""lgdm: hyperfeatures along a perceptually guided path of the loaded model, and a head fitted for that model.

LGDM with perceptual manifold guidance (Saini, Liao, Ye, Bovik, 2025, arXiv 2506.00327), reimplemented after the paper,
not by its authors: they released no code, and what the paper leaves open is an option (``hyperfeature_options.py``).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import BadInput, MismatchedBackbone
from ..heads.head_file import Wanted, check_head, head_digest
from ..images import as_list
from ..records import Score, ScoreBatch, ScoreSpec
from .hyperfeature_options import HyperfeatureOptions
from .hyperfeatures import Extracted, Hyperfeatures
from .lgdm_map import lgdm_map
from .masked_views import mask_of, masks_at_door

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Backbone
    from ..heads.head import Head
    from ..heatmap import HeatMap
    from ..perceptual.contract import Psi
    from .contract import Images, Watch

NAME = "lgdm"
#: The head that comes with the package, for the embedded model.
SHIPPED = Path(__file__).parents[1] / "assets" / "lgdm" / "critic_ldm.safetensors"
BLIND_TO = (
    "hands, faces, anatomy, meaning, whether a picture fits its prompt, and what its head's pictures did not show"
)
NEEDS = ("image", "model", "vae", "clip", "head")


def options_of(head: Head) -> HyperfeatureOptions:
    """The settings that a head's features were computed with.

    Raises:
        BadInput: the head is of another method, or of settings that this version does not know.
    """
    if head.meta.method != NAME:
        raise BadInput(f"a head of {NAME}", f"one of {head.meta.method}", "Connect a head that Fit Head made.")
    told = {name: value for name, value in head.meta.settings.items() if name != "psi_identity"}
    return HyperfeatureOptions.from_dict(told)


class Lgdm:
    """The loaded model and a head fitted for it; a :class:`~.contract.Scorer` and a :class:`~.contract.LatentScorer`.

    Args:
        backbone: The loaded model, with CLIP and VAE.
        head: Of kind ``guided_path`` or ``single_level``.
        psi: The perceptual term's features, when the head was fitted with one.
        override: Take a head of another checkpoint of the same family; scores then only rank.
        most_rows: Views in one forward at most, whatever memory would hold; changes no score.
        masks: [M, H, W] from 0 to 1: score that region of each image only. One for all images, or one for each.

    Raises:
        MismatchedBackbone: names the field in which head and model differ.
        BadInput: the head is of another method, or its psi is not given; or no masks.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        psi: Psi | None = None,
        *,
        override: bool = False,
        most_rows: int | None = None,
        masks: Tensor | None = None,
    ) -> None:
        options = options_of(head)
        if most_rows is not None:
            options = replace(options, guidance=replace(options.guidance, most_rows=most_rows))
        wanted = Wanted(
            NAME, sigmas=options.sigmas(backbone.family.prediction), size_policy=options.policy(backbone.family)
        )
        self._fit = check_head(head, backbone, options.kind, wanted, override=override)
        self._features = Hyperfeatures(backbone, options, psi)
        if self._features.layout != head.layout:
            raise MismatchedBackbone(
                f"a head whose layout is that of this model ({self._features.layout.size} features)",
                f"layout of {head.layout.size} features",
                "The model's blocks have other channels: fit a head on this model.",
            )
        before = head.meta.settings.get("psi_identity")
        if before != self._features.psi_identity:
            raise MismatchedBackbone(
                f"a head whose psi is {self._features.psi_identity}", f"psi {before}", "Give the psi of the head."
            )
        self._backbone, self._head, self._digest = backbone, head, head_digest(head)
        self._masks = None if masks is None else masks_at_door(masks)
        self._masked = {} if self._masks is None else {"masks": _digest(self._masks)}

    @property
    def backbone(self) -> Backbone:
        """The model that it judges with."""
        return self._backbone

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean: 0 to 100 where the head was fitted to ratings, else a ranking."""
        meta = self._head.meta
        return ScoreSpec(
            name=NAME,
            scale=meta.scale,
            calibrated_on=meta.calibrated_on if self._fit.calibrated else None,
            centre=meta.centre,
            spread=meta.spread,
            needs=NEEDS,
            size_policy=meta.size_policy,
            blind_to=BLIND_TO,
            backbone=self._backbone.fingerprint.to_text(),
            settings={
                "head": self._digest,
                "training_set": meta.training_set,
                "pictures": meta.pictures,
                **self._features.settings(),
                "sigmas": list(self._features.sigmas),
                "identity": dict(self._backbone.identity),
                **self._masked,
            },
        )

    def part(self, start: int, stop: int, count: int) -> Lgdm:
        """This scorer for the images ``start`` to ``stop`` of ``count`` that are scored in several calls.

        Of masks, one for each, it takes those of its images; its spec stays that of the whole.

        Raises:
            BadInput: neither one mask nor ``count``.
        """
        if self._masks is None:
            return self
        mask_of(self._masks, 0, count)
        found = copy.copy(self)
        found._masks = self._masks[start:stop] if len(self._masks) > 1 else self._masks
        return found

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """Score every image. ``prompts`` are not used; ``watch`` is told of every forward and may raise to stop.

        Each score's attributes hold its spread: about 68 % of ratings lie within one spread of the score. A head that
        was fitted without ratings knows none.

        Raises:
            BadInput: another number of prompts or of masks than images.
        """
        found = as_list(images)
        _check_prompts(prompts, len(found))
        return self._batch(self._extracted(found, watch))

    def _extracted(self, images: Images, watch: Watch | None) -> list[Extracted]:
        if self._masks is None:
            return self._features.extract(images, watch=watch)
        return self._features.extract_masked(images, self._masks, watch=watch)

    def score_latents(
        self, latents: Tensor, prompts: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> ScoreBatch:
        """Score latents [N, C, h, w] of the model's scaled space.

        Square latents of the size at which pictures are read are used as they are; others, and with masks all, are
        decoded first.

        Raises:
            BadInput: no latents of this model.
        """
        family = self._backbone.family
        if latents.ndim != 4 or latents.shape[1] != family.latent_channels or len(latents) < 1:
            raise BadInput(
                f"latents [N, {family.latent_channels}, h, w]", f"shape {list(latents.shape)}", "Use this model's own."
            )
        _check_prompts(prompts, len(latents))
        if self._masks is None and self._features.takes_latents(latents.shape[1:]):
            return self._batch(self._features.extract_latents(latents, watch=watch), source="latents")
        pictures = [self._backbone.decode(row)[0] for row in latents.split(1)]
        return self._batch(self._extracted(pictures, watch), source="decoded latents")

    def heat_map(self, image: Tensor, *, watch: Watch | None = None) -> HeatMap:
        """What each place of one picture [3, H, W] adds to its score; costs as much as its score.

        Raises:
            BadInput: the head is not linear, the scorer has masks, or the picture cannot be scored.
        """
        if self._masks is not None:
            raise BadInput(
                "a scorer without a mask for a heat map",
                "one that scores a masked region only",
                "Disconnect the mask from LGDM Scorer: the map is of the whole image.",
            )
        return lgdm_map(self._features, self._head, image, watch=watch)

    def _batch(self, extracted: Sequence[Extracted], source: str | None = None) -> ScoreBatch:
        told: dict[str, Any] = {"warnings": list(self._fit.warnings)} if self._fit.warnings else {}
        told.update({"source": source} if source else {})
        scores = []
        for place, one in enumerate(extracted):
            attributes = {**one.attributes, **told}
            if one.features is None:
                scores.append(Score(None, place, reason=cast("str", one.reason), attributes=attributes))
                continue
            # A row at a time: a product of matrices of another height may round in another way.
            found = self._head.predict(one.features[None])
            if self._head.error > 0.0:
                attributes["spread"] = float(found.spread[0])
            scores.append(Score.of(float(found.value[0]), place, attributes=attributes))
        return ScoreBatch(self.spec, tuple(scores))


def _check_prompts(prompts: Sequence[str] | None, count: int) -> None:
    if prompts is not None and len(prompts) != count:
        raise BadInput(f"{count} prompts, one per image", str(len(prompts)), "Leave prompts out.")


def _digest(masks: Tensor) -> str:
    """Which masks: scores of other regions are other scores."""
    found = hashlib.sha256(repr(tuple(masks.shape)).encode())
    found.update(masks.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
