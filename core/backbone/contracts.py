"""What core asks of a host: one narrow thing, a latent diffusion model that encodes, decodes, embeds and denoises.

Conventions, the same for every host. Images are float32 NCHW RGB in [0, 1]. Latents are NCHW (or NCTHW for video
families) in the model's own *scaled* space. The noise level is sigma, with z_t = z + sigma * eps for eps- and
v-prediction and z_t = (1 - sigma) * z + sigma * eps for flow models. Every row of a batch has its own sigma and its own
conditioning, so callers batch prompts and noise levels freely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..taps.recorder import Recorder
    from .fingerprint import Fingerprint

Prediction = Literal["eps", "v", "flow"]


@dataclass(frozen=True, slots=True)
class Tap:
    """A place in the denoiser that can be read.

    Attributes:
        name: Stable over hosts: ``mid``, ``up.0`` … for features; ``down.0.0``, ``mid.0``, ``up.1.2`` … for attention.
        kind: ``feature`` (block output) or ``attention`` (image rows × text columns of the attention logits).
        channels: Feature channels, or attention heads.
        stride: Latent pixels per cell, along each side.
    """

    name: str
    kind: Literal["feature", "attention"]
    channels: int
    stride: int


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between families of diffusion models, as data.

    Attributes:
        name: ``sd15``, ``sd20``, ``sdxl`` …
        prediction: How the network's output becomes x0.
        latent_channels: Channels of z.
        latent_stride: Image pixels per latent pixel, along each side.
        native_size: Image side that the family was trained at.
        text_layout: ``clip_l``, ``clip_h``, ``clip_l+clip_g`` …; several possible ones are set apart by ``|``.
        taps: Every tap of *this* model in the order in which a forward reaches them.
        patch: Latent pixels per token of the network's own grid, along each side; pictures are made to fit it.
        guidance: The distilled guidance that the network is told, where it takes one.
        words_from: Whose tokens the attention's columns begin with, where it is not the first encoder of the layout.
    """

    name: str
    prediction: Prediction
    latent_channels: int
    latent_stride: int
    native_size: int
    text_layout: str
    taps: tuple[Tap, ...] = ()
    patch: int = 1
    guidance: float | None = None
    words_from: str = ""

    @property
    def size_step(self) -> int:
        """Image pixels by which sides may grow without the network padding its grid."""
        return self.latent_stride * self.patch


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Text conditions, one row per prompt.

    Attributes:
        tokens: [rows, tokens, width] cross-attention input.
        pooled: [rows, width] pooled text, where the family has it.
        prompts: The texts themselves.
        spans: For each row, {word position: (first token, last token + 1)} within ``tokens``.
        text_tokens: For each row, (first, last + 1) of the tokens that carry text (no start, end or padding).
        lengths: For each row, how many of ``tokens`` are its own; the rest repeats them, because longer prompts lie in
            the same tensor. Hosts compute each length by itself, so that batch-mates change nothing.
        extra: What only this host needs (size conditions), passed through untouched.
        row_extra: What only this host needs of each row (masks) [rows, …]; as long as ``tokens`` where it is by token.
    """

    tokens: Tensor
    pooled: Tensor | None
    prompts: tuple[str, ...]
    spans: tuple[dict[int, tuple[int, int]], ...] = ()
    text_tokens: tuple[tuple[int, int], ...] = ()
    lengths: tuple[int, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    row_extra: dict[str, Tensor] = field(default_factory=dict)

    def rows(self, index: Sequence[int]) -> Conditioning:
        """These rows, in this order, repeated as often as they are named."""
        picked = list(index)
        return Conditioning(
            tokens=self.tokens[picked],
            pooled=None if self.pooled is None else self.pooled[picked],
            prompts=tuple(self.prompts[i] for i in picked),
            spans=tuple(self.spans[i] for i in picked) if self.spans else (),
            text_tokens=tuple(self.text_tokens[i] for i in picked) if self.text_tokens else (),
            lengths=tuple(self.lengths[i] for i in picked) if self.lengths else (),
            extra=self.extra,
            row_extra={name: value[picked] for name, value in self.row_extra.items()},
        )


class Backbone(Protocol):
    """A loaded latent diffusion model, as its host hands it over. No second copy of the user's model is made."""

    @property
    def family(self) -> Family:
        """The family row of this model."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """A dtype-tolerant sketch of the unpatched weights."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """What else than :attr:`fingerprint` decides a value, as short texts to compare: patches, text encoder, VAE.

        Equal for two backbones that were set up alike. It is cheap to read.
        """
        ...

    def encode(
        self, pixels: Tensor, *, value_range: tuple[float, float] = (-1.0, 1.0), sample: int | None = None
    ) -> Tensor:
        """Pixels [N, 3, H, W] in [0, 1] → latents [N, C, h, w].

        ``value_range`` is what [0, 1] is mapped to before the VAE. The posterior's mode is returned unless ``sample``
        gives a seed.
        """
        ...

    @property
    def has_tiny_decoder(self) -> bool:
        """Whether :meth:`decode` knows a tiny autoencoder beside the full one."""
        ...

    def decode(self, latents: Tensor, *, differentiable: bool = False, tiny: bool = False) -> Tensor:
        """Latents [N, C, h, w] → pixels [N, 3, H, W] in [0, 1] (not clamped when differentiable).

        A differentiable decode and its backward lie inside :meth:`gradients`. ``tiny`` takes the tiny autoencoder.
        """
        ...

    def gradients(
        self, *, decoder: bool = True, denoiser: bool = False, networks: Sequence[nn.Module] = ()
    ) -> AbstractContextManager[None]:
        """A context in which backwards work, wherever the host would keep them from it.

        Args:
            decoder: Through a differentiable :meth:`decode`.
            denoiser: Through :meth:`denoise` and :meth:`features`.
            networks: Through these as well; they get no gradients of their own.
        """
        ...

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Texts → conditions, cached per text."""
        ...

    def denoise(
        self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, recorder: Recorder | None = None
    ) -> Tensor:
        """One full forward: noised latents [N, C, h, w] at sigma [N] → the clean estimate x0 [N, C, h, w].

        The conditioning has N rows. Rows are computed in as few chunks as memory allows. For eps- and v-prediction
        eps = (z_t - x0) / sigma.
        """
        ...

    def features(self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, recorder: Recorder) -> None:
        """As :meth:`denoise`, but the forward ends at the last tap that the recorder asks for, and there is no x0."""
        ...

    def noise(self, shape: Sequence[int], seed: int) -> Tensor:
        """Standard normal noise, the same on every device and dtype for one seed."""
        ...

    def rows_that_fit(self, latent_shape: Sequence[int], *, backward: bool = False, decoder: bool = False) -> int:
        """How many rows of [C, h, w] one forward may hold in free memory; at least 1.

        Args:
            latent_shape: C, h, w of one row.
            backward: Counts what a backward needs too.
            decoder: Of the decoder instead of the denoiser.
        """
        ...
