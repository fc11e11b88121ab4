"""Scoring from a script: a diffusers pipeline that is loaded anyway becomes the judge of a list of pictures.

import latent_critic
scorer = latent_critic.Scorer.from_pipeline(pipe)
scores = scorer.score(images).values()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from PIL import Image

from .errors import BadInput, MissingDependency
from .images import from_picture, load_image
from .methods.on_model import ON_MODEL, WITHOUT_HEAD, read_head, scorer_on
from .methods.tiled import Tiled

if TYPE_CHECKING:
    from .backbone.contracts import Backbone
    from .methods.contract import Scorer as CoreScorer
    from .methods.contract import Watch
    from .records import ScoreBatch, ScoreSpec

#: A picture: of PIL, a file, or a tensor [3, H, W] in [0, 1].
Picture: TypeAlias = "Image.Image | str | PathLike[str] | torch.Tensor"


class Scorer:
    """A scorer that takes pictures in whatever form a script has them.

    Args:
        scorer: One of core's scorers.
    """

    def __init__(self, scorer: CoreScorer) -> None:
        self._scorer = scorer

    @classmethod
    def from_pipeline(
        cls,
        pipeline: Any,
        method: str | None = None,
        head: str | PathLike[str] | None = None,
        *,
        config: str | PathLike[str] | None = None,
        device: str = "cpu",
        side: int | None = None,
        tiles: bool = False,
    ) -> Scorer:
        """A scorer on a pipeline's own model; nothing of it is copied, and nothing stays on it.

        Args:
            pipeline: A diffusers pipeline (SD 1.x, SD 2.x, SDXL, SD3, Flux.1, Flux.2, Lumina 2, Z-Image, Qwen-Image,
                Wan 2.1), a folder in diffusers' layout, one safetensors file, or ``embedded`` for the model that ships.
                Nothing is downloaded.
            method: ``zero_shot`` or ``prompt_alignment``, which need no head, or ``lgdm``, ``genziqa``, ``dp_iqa``.
                Left out: ``lgdm`` with a head, ``zero_shot`` without.
            head: A head's file, fitted for this model.
            config: With one safetensors file: a folder in diffusers' layout of the same family.
            device: Where a folder's or file's model runs; a pipeline stays where it is.
            side: Root of the area in pixels at which pictures are scored; the family's own when left out. A head
                brings its own.
            tiles: Score pictures that are larger in overlapping tiles of that size instead of resizing them.

        Raises:
            BadInput: no such method, or a head where none is taken or the other way round.
            MissingDependency: diffusers is not installed.
            UnreadableFile: no model, or no head, at that place.
            UnsupportedFamily: a model of no known family, or one that the method cannot use.
        """
        name = method or ("zero_shot" if head is None else "lgdm")
        names = (*_UNTRAINED, *_TRAINED)
        if name not in names:
            raise BadInput(f"a method out of {', '.join(names)}", repr(name), "Leave it out for zero_shot.")
        if (head is None) != (name in _UNTRAINED):
            remedy = "Fit one with `latent-critic fit-head`." if head is None else "Leave the head out."
            raise BadInput(f"{'no' if name in _UNTRAINED else 'a'} head with {name}", repr(head), remedy)
        backbone = _backbone(pipeline, config, device)
        made = _UNTRAINED[name](backbone, side) if head is None else scorer_on(name, backbone, read_head(Path(head)))
        return cls(Tiled(made) if tiles else made)

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean."""
        return self._scorer.spec

    def score(
        self, images: Sequence[Picture], prompts: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> ScoreBatch:
        """Score every picture, in order; ``.values()`` are the numbers, a picture that has none carries a reason.

        Args:
            images: Pictures of any sizes.
            prompts: One text per picture, for ``prompt_alignment``.
            watch: Called with (steps done, steps in all); may raise to stop.
        """
        if isinstance(images, Image.Image | str | PathLike | torch.Tensor):
            raise BadInput("a list of pictures", type(images).__name__, "Put the picture into a list.")
        return self._scorer.score([_pixels(image) for image in images], prompts, watch=watch)


def _pixels(image: Picture) -> torch.Tensor:
    if isinstance(image, Image.Image):
        return from_picture(image)
    if isinstance(image, str | PathLike):
        return load_image(Path(image))
    if isinstance(image, torch.Tensor):
        return image
    raise BadInput("PIL images, paths or tensors [3, H, W]", type(image).__name__, "Convert them first.")


def _backbone(pipeline: Any, config: str | PathLike[str] | None, device: str) -> Backbone:
    try:
        from .hosts.diffusers.backbone import DiffusersBackbone
        from .hosts.diffusers.loading import load_pipeline
    except ImportError as error:
        remedy = "pip install 'latent-critic[diffusers]'"
        raise MissingDependency("diffusers to run a pipeline", str(error), remedy) from error
    if isinstance(pipeline, str | PathLike):
        pipeline = load_pipeline(str(pipeline), device, None if config is None else str(config))
    return DiffusersBackbone(pipeline)


def _zero_shot(backbone: Backbone, side: int | None) -> CoreScorer:
    from .methods.zero_shot import ZeroShot, ZeroShotOptions

    return ZeroShot(backbone, options=ZeroShotOptions(side=side))


def _prompt_alignment(backbone: Backbone, side: int | None) -> CoreScorer:
    from .methods.alignment import AlignmentOptions, PromptAlignment

    return PromptAlignment(backbone, AlignmentOptions(side=side))


#: Scorers that need no head, and what makes them.
_UNTRAINED: dict[str, Callable[[Backbone, int | None], CoreScorer]] = {
    "zero_shot": _zero_shot,
    "prompt_alignment": _prompt_alignment,
}
_TRAINED = tuple(name for name in ON_MODEL if name not in WITHOUT_HEAD)
