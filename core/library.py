"""Scoring from a script: a diffusers pipeline that is loaded anyway becomes the judge of a list of pictures.

import latent_critic
scorer = latent_critic.Scorer.from_pipeline(pipe)
scores = scorer.score(images).values()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from PIL import Image

from .errors import BadInput, MissingDependency, UnreadableFile
from .images import from_picture, load_image
from .methods.on_model import ON_MODEL, WITHOUT_HEAD, read_head, scorer_on, shipped_head
from .methods.tiled import Tiled
from .records import Score, ScoreBatch

if TYPE_CHECKING:
    from .backbone.contracts import Backbone
    from .hosts.diffusers.backbone import DiffusersBackbone
    from .methods.contract import Scorer as CoreScorer
    from .methods.contract import Watch
    from .records import ScoreSpec

#: A picture: of PIL, a file, or a tensor [3, H, W] in [0, 1].
Picture: TypeAlias = "Image.Image | str | PathLike[str] | torch.Tensor"
#: Dimensions of a batch in one tensor.
_BATCH = 4


class Scorer:
    """A scorer that takes pictures in whatever form a script has them.

    Args:
        scorer: One of core's scorers.
        in_use: Around each of its runs, such as a backbone's.
    """

    def __init__(self, scorer: CoreScorer, in_use: Callable[[], AbstractContextManager[None]] | None = None) -> None:
        self._scorer, self._in_use = scorer, in_use or nullcontext

    @classmethod
    def from_pipeline(
        cls,
        pipeline: Any,
        method: str | None = None,
        head: str | PathLike[str] | None = None,
        *,
        config: str | PathLike[str] | None = None,
        device: str | None = None,
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
            head: A head's file, fitted for this model; for ``embedded``, the one that ships when left out.
            config: With one safetensors file: a folder in diffusers' layout of the same family.
            device: Where a folder's or file's model runs, the CPU when left out; a pipeline stays where it is.
            side: Root of the area in pixels at which pictures are scored; the family's own when left out. A head
                brings its own.
            tiles: Score pictures that are larger in overlapping tiles of that size instead of resizing them.

        Raises:
            BadInput: no such method, a head where none is taken or the other way round, a setting that would have no
                effect, or a device that this machine lacks.
            MissingDependency: diffusers is not installed.
            UnreadableFile: no model, or no head, at that place.
            UnsupportedFamily: a model of no known family, or one that the method cannot use.
        """
        name = method or ("zero_shot" if head is None else "lgdm")
        names = (*_UNTRAINED, *_TRAINED)
        if name not in names:
            raise BadInput(f"a method out of {', '.join(names)}", repr(name), "Leave it out for zero_shot.")
        if head is None and pipeline == "embedded":
            head = shipped_head(name)
        if (head is None) != (name in _UNTRAINED):
            remedy = "Fit one with `latent-critic fit-head`." if head is None else "Leave the head out."
            raise BadInput(f"{'no' if name in _UNTRAINED else 'a'} head with {name}", repr(head), remedy)
        if head is not None and side is not None:
            raise BadInput("no side with a head", str(side), "Leave it out: the head brings its own.")
        backbone = _backbone(pipeline, config, device)
        made = _UNTRAINED[name](backbone, side) if head is None else scorer_on(name, backbone, read_head(Path(head)))
        return cls(_tiled(made) if tiles else made, backbone.in_use)

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean."""
        return self._scorer.spec

    def score(
        self, images: Sequence[Picture], prompts: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> ScoreBatch:
        """Score every picture, in order; ``.values()`` are the numbers, a picture that has none carries a reason.

        Args:
            images: Pictures of any sizes. One that cannot be read gets a reason; the others are scored.
            prompts: One text per picture, for ``prompt_alignment``.
            watch: Called with (steps done, steps in all); may raise to stop.

        Raises:
            BadInput: no list of pictures, not as many prompts, or a pipeline whose parts have changed since.
        """
        pictures = _listed(images)
        if prompts is not None and (isinstance(prompts, str) or len(prompts) != len(pictures)):
            raise BadInput(f"{len(pictures)} prompts, one text per picture", repr(prompts)[:60], "Repeat one for all.")
        found = [_read(picture, place) for place, picture in enumerate(pictures)]
        good = [(place, one) for place, one in enumerate(found) if isinstance(one, torch.Tensor)]
        unread = [one for one in found if isinstance(one, Score)]
        if unread and not good:
            return ScoreBatch(self.spec, tuple(unread))
        texts = None if prompts is None else [prompts[place] for place, _ in good]
        with self._in_use():
            batch = self._scorer.score([image for _, image in good], texts, watch=watch)
        whole = {place: replace(score, index=place) for (place, _), score in zip(good, batch, strict=True)}
        whole |= {one.index: one for one in unread}
        return replace(batch, scores=tuple(whole[place] for place in range(len(found))))


def _listed(images: Sequence[Picture]) -> list[Picture]:
    if isinstance(images, torch.Tensor) and images.ndim == _BATCH:
        return list(images)
    if isinstance(images, Image.Image | str | PathLike | torch.Tensor):
        raise BadInput("a list of pictures", type(images).__name__, "Put the picture into a list: [picture].")
    return list(images)


def _read(picture: Picture, place: int) -> torch.Tensor | Score:
    """Pixels [3, H, W], or why there are none."""
    try:
        pixels = _pixels(picture)
    except UnreadableFile as error:
        return Score(None, place, reason=error.got)
    if pixels.ndim == _BATCH - 1 and min(pixels.shape[1:]) < 1:
        return Score(None, place, reason="the image has no pixels")
    return pixels


def _pixels(image: Picture) -> torch.Tensor:
    if isinstance(image, Image.Image):
        return from_picture(image)
    if isinstance(image, str | PathLike):
        return load_image(Path(image))
    if isinstance(image, torch.Tensor):
        return image
    raise BadInput("PIL images, paths or tensors [3, H, W]", type(image).__name__, "Convert them first.")


def _tiled(scorer: CoreScorer) -> CoreScorer:
    try:
        return Tiled(scorer)
    except BadInput as error:
        raise BadInput(error.expected, error.got, "Leave tiles out, or tiles=False.") from error


def _backbone(pipeline: Any, config: str | PathLike[str] | None, device: str | None) -> DiffusersBackbone:
    try:
        from .hosts.diffusers.backbone import DiffusersBackbone
        from .hosts.diffusers.loading import load_pipeline
    except ImportError as error:
        remedy = "pip install 'latent-critic[diffusers]'"
        raise MissingDependency("diffusers to run a pipeline", str(error), remedy) from error
    if isinstance(pipeline, str | PathLike):
        return DiffusersBackbone(load_pipeline(str(pipeline), device or "cpu", None if config is None else str(config)))
    if device is not None or config is not None:
        got = f"device={device!r}, config={config!r}"
        remedy = "Leave them out: a pipeline stays where it is; pipe.to(…) moves it."
        raise BadInput("no device and no config with a pipeline object", got, remedy)
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
