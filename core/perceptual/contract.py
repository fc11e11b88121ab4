"""What every psi is: features of a picture or a latent, and a distance between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor, nn

#: What psi works on: pixels [N, 3, H, W] in [0, 1] (a decoder may overshoot), or latents [N, C, h, w].
Space: TypeAlias = Literal["pixels", "latent"]


class Psi(Protocol):
    """A perceptual feature extractor; deterministic, and no row looks at another."""

    @property
    def name(self) -> str:
        """Its short name: ``judge``, ``ldm``, ``lpips``, ``dists``, ``latent``."""
        ...

    @property
    def identity(self) -> str:
        """Everything that decides a value (weights, layers, levels), as a short text: a key for caches."""
        ...

    @property
    def space(self) -> Space:
        """Whether :meth:`features` takes pixels or latents."""
        ...

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Networks of its own that a gradient passes through; the host makes them ready for a backward."""
        ...

    @property
    def through_denoiser(self) -> bool:
        """Whether a gradient passes through the backbone's denoiser."""
        ...

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Pixels or latents → maps [N, C, h, w] or vectors [N, C], differentiable.

        Raises:
            BadInput: another shape than :attr:`space` names.
        """
        ...

    def distance(self, a: tuple[Tensor, ...], b: tuple[Tensor, ...], weight: Tensor | None = None) -> Tensor:
        """Two pictures' features → a squared distance [N], ≥ 0, and 0 for equal features.

        Args:
            a: Features of one batch.
            b: Features of another batch of the same shape.
            weight: [N, 1, H, W] ≥ 0, how much each place of the picture counts; maps take its area average. Where a
                row's weight is 0 everywhere its distance is 0.
        """
        ...
