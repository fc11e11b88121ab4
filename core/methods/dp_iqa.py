"""dp_iqa: the up blocks' features of one forward without noise, with adapters for text and image, decoded to a score.

Reimplemented after Utilizing Diffusion Prior for Blind Image Quality Assessment in the Wild, 2024 (arXiv 2405.19996),
not by its authors. Frozen mode, as here: adapters and decoder are trained, the user's model is left as it is. The
published form fine-tunes the U-Net too; then the model is one of its own (``core/hosts/comfyui/own_unet.py``), read in
the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import BadInput
from ..heads.check import Fit, Wanted, check_head
from ..images import as_list, reason_unscorable
from ..records import Score, ScoreBatch, ScoreSpec
from .dp_iqa_placed import placed
from .dp_iqa_reader import MapReader
from .dp_iqa_text import TextSequence, text_sequence
from .native_size import to_native
from .prompt_plan import Block, plan_blocks

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.residuals import ResidualBackbone
    from .contract import Images, Watch
    from .dp_iqa_head import DpHead

_log = logging.getLogger(__name__)
BLIND_TO = (
    "hands, faces, meaning, whether the picture fits its prompt, faults that vanish when the picture is resized, "
    "whatever the pictures that it was trained on did not show"
)
#: The words beside every score that the authors' weights gave.
ACADEMIC = "academic use: the weights are the DP-IQA authors', who allow no other use"


@dataclass(frozen=True, slots=True)
class DpOptions:
    """What a user may choose.

    Attributes:
        override: Use a head of another checkpoint of the family; its scores then only rank.
        most_rows: Images in one forward at most.
        text_folder: Where the text sequence is kept between runs; in memory only when left out.
        warnings: Told beside every score.
    """

    override: bool = False
    most_rows: int = 8
    text_folder: Path | None = None
    warnings: tuple[str, ...] = ()


class DpIqa:
    """A trained DP-IQA head on a model; a :class:`~.contract.Scorer`.

    Args:
        backbone: The model; it needs its VAE, and its text encoder until the text sequence is known.
        head: Adapters, decoder and settings.
        options: Rows and the like.
        place: Puts a network where the host wants it; ``None`` leaves it on the backbone's device.

    Raises:
        MismatchedBackbone: the head was made for another model.
        BadInput: a side that the model's latents cannot have.
    """

    def __init__(
        self,
        backbone: ResidualBackbone,
        head: DpHead,
        options: DpOptions | None = None,
        place: Callable[[nn.Module], Callable[..., Any]] | None = None,
    ) -> None:
        self._options, self._head = options or DpOptions(), head
        wanted = Wanted(method="dp_iqa", taps=head.taps)
        self._fit: Fit = check_head(head, backbone, "maps", wanted, override=self._options.override)
        head.check(backbone)
        self._backbone, self._digest = backbone, head.digest()
        self._nets = placed(head.nets, backbone.noise((1,), 0).device, place)
        self._reader = MapReader(backbone, head, self._nets.image)

    @property
    def backbone(self) -> ResidualBackbone:
        """The model whose latents :meth:`score_latents` would take."""
        return self._backbone

    @property
    def academic(self) -> bool:
        """Whether the weights are the authors', for academic use only."""
        return self._head.academic

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean: 0 to 100 where the head was trained on ratings and fits this model."""
        meta, calibrated = self._head.meta, self._fit.calibrated
        return ScoreSpec(
            name="dp_iqa",
            scale=meta.scale if calibrated else None,
            calibrated_on=meta.calibrated_on if calibrated else None,
            centre=meta.centre,
            spread=meta.spread,
            needs=("image", "model", "clip", "vae", "head"),
            size_policy=self._head.settings.size_policy(self._backbone.family),
            blind_to=BLIND_TO,
            backbone=self._backbone.fingerprint.to_text(),
            settings={
                **self._head.settings.to_dict(),
                "sigmas": list(meta.sigmas),
                "taps": list(self._head.taps),
                "head": {"trained_on": meta.training_set, "pictures": meta.pictures, "fingerprint": meta.fingerprint},
                "weights": self._digest,
                "identity": dict(self._backbone.identity),
                **({"use": ACADEMIC} if self.academic else {}),
            },
        )

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """Score every image. ``prompts`` are not used; ``watch`` is called after every forward of the denoiser.

        Each score's attributes hold the size that the image was read at.
        """
        scores, _ = self.read(images, prompts, watch=watch)
        return scores

    def read(
        self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> tuple[ScoreBatch, list[Tensor | None]]:
        """As :meth:`score`, with each image's quality map [c, grid, grid] (``None`` where there is no score)."""
        found = as_list(images)
        if prompts is not None and len(prompts) != len(found):
            raise BadInput(f"{len(found)} prompts, one per image", str(len(prompts)), "Leave prompts out.")
        sizes, scores = dict[int, tuple[int, int]](), dict[int, Score]()
        maps: list[Tensor | None] = [None] * len(found)
        for place, image in enumerate(found):
            size = self._size(image)
            if isinstance(size, str):
                scores[place] = Score(None, place, reason=size)
            else:
                sizes[place] = size
        with torch.no_grad():
            for block in self._blocks(sizes, watch):
                for place, (score, quality) in self._block(block, found).items():
                    scores[place], maps[place] = score, quality
        return ScoreBatch(self.spec, tuple(scores[place] for place in range(len(found)))), maps

    def _size(self, image: Tensor) -> tuple[int, int] | str:
        reason = reason_unscorable(image)
        if reason is not None:
            return reason
        try:
            return self._head.settings.shape(image.shape[1], image.shape[2], self._backbone.family)
        except BadInput as error:
            return str(error)

    def _blocks(self, sizes: Mapping[int, tuple[int, int]], watch: Watch | None) -> list[Block]:
        family = self._backbone.family

        def rows_that_fit(size: tuple[int, int]) -> int:
            shape = (family.latent_channels, *(side // family.latent_stride for side in size))
            return min(self._options.most_rows, self._backbone.rows_that_fit(shape))

        return plan_blocks(sizes, rows_an_image=1, rows_that_fit=rows_that_fit, watch=watch) if sizes else []

    def _text(self) -> tuple[Tensor, TextSequence]:
        """The adapted sequence: computed once for the life of a scorer."""
        nets = self._nets
        if nets.sequence is None or nets.tokens is None:
            nets.sequence = text_sequence(self._backbone, self._head.settings.text, self._options.text_folder)
            width = self._head.nets.shape.token_width
            if nets.sequence.tokens.shape[1] != width:
                got, remedy = str(nets.sequence.tokens.shape[1]), "Connect the text encoder that it was trained with."
                raise BadInput(f"a text encoder of width {width}", got, remedy)
            plain = nets.sequence.tokens
            nets.tokens = plain if nets.text is None else nets.text(plain)
        tokens = nets.tokens
        assert tokens is not None
        return tokens, nets.sequence

    def _block(self, block: Block, images: Sequence[Tensor]) -> dict[int, tuple[Score, Tensor | None]]:
        pixels = torch.stack([to_native(images[place], block.size) for place in block.places])
        latents = self._reader.encode(pixels).float()
        tokens, sequence = self._text()
        finite = latents.flatten(1).isfinite().all(1)
        # A broken latent is read as zeros, so that it cannot reach its batch-mates, and gets its reason below.
        latents = torch.where(finite.view(-1, 1, 1, 1), latents, torch.zeros_like(latents))
        beside = None if self._nets.image is None else pixels
        maps, silent = self._reader.maps(latents, beside, tokens, sequence)
        block.done()
        size = {"height": block.size[0], "width": block.size[1]}
        if silent:
            reason = (
                f"no features of {', '.join(silent)}: packs that cache steps or compile the model skip them. Score "
                "with the model before such a node"
            )
            return {place: (Score(None, place, reason=reason, attributes=size), None) for place in block.places}
        values, quality = self._nets.decoder(*maps)
        return {
            place: self._one(place, float(values[row]), quality[row].cpu(), bool(finite[row]), size)
            for row, place in enumerate(block.places)
        }

    def _one(
        self, place: int, raw: float, quality: Tensor, finite: bool, size: Mapping[str, int]
    ) -> tuple[Score, Tensor | None]:
        attributes: dict[str, Any] = dict(size)
        warnings = [*self._fit.warnings, *self._options.warnings, *([ACADEMIC] if self.academic else [])]
        if warnings:
            attributes["warnings"] = warnings
        if not finite:
            reason = "the VAE gave NaN (often fp16: use a bf16 or fp32 VAE)"
            return Score(None, place, reason=reason, attributes=attributes), None
        value, scale = 100.0 * raw, self._head.meta.scale if self._fit.calibrated else None
        bounded = value if scale is None or value != value else min(max(value, scale[0]), scale[1])
        score = Score.of(bounded, place, attributes=attributes)
        return score, quality if score.ok else None
