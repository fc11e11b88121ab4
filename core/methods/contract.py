"""What every scorer is: images in, a batch of scores out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from ..records import ScoreBatch, ScoreSpec

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Backbone
    from ..heatmap import HeatMap

#: One tensor [N, 3, H, W], or a sequence of [3, H, W] of any sizes; float32 RGB in [0, 1].
Images: TypeAlias = "Tensor | Sequence[Tensor]"

#: Called with (steps done, steps in all) after every unit of work. It may raise to stop the run (ComfyUI's interrupt
#: does); scorers let that exception through.
Watch: TypeAlias = Callable[[int, int], None]


@runtime_checkable
class Scorer(Protocol):
    """A configured scorer, bound to whatever model it needs.

    Deterministic in (image, settings, backbone): its seeds are its own, and neither batch size nor batch-mates change
    a value by more than 1e-4 of the scale in fp32. An image that cannot be scored gets a reason; the others still get
    their scores.
    """

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean."""
        ...

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """Score every image, in order. ``prompts``, when given, holds one text per image."""
        ...


@runtime_checkable
class LatentScorer(Scorer, Protocol):
    """A scorer that starts from latents anyway, so that a latent at hand needs neither decoding nor encoding."""

    @property
    def backbone(self) -> Backbone:
        """The model whose latents these are."""
        ...

    def score_latents(
        self, latents: Tensor, prompts: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> ScoreBatch:
        """As :meth:`~Scorer.score`, from clean latents [N, C, h, w] in the model's scaled space, at their own size."""
        ...


@runtime_checkable
class MapScorer(Scorer, Protocol):
    """A scorer that can say exactly what each place of a picture adds to its score."""

    def heat_map(self, image: Tensor, *, watch: Watch | None = None) -> HeatMap:
        """Of one picture [3, H, W] in [0, 1].

        Raises:
            BadInput: a picture that cannot be scored, or settings (a head that is not linear) that allow no map.
        """
        ...
