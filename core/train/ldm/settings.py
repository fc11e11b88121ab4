"""What a training run is told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import BadInput

Stage = Literal["autoencoder", "denoiser"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of the three networks. The defaults are those of the shipped model.

    The autoencoder has TAESD's fixed shape (64 channels, 8 times down), because that is the one small shape which both
    hosts load by themselves; U-Net channels are multiples of 32, because ComfyUI's U-Net has 32 groups per norm, and of
    the first, because it counts them in multiples of it.

    Raises:
        BadInput: sizes that make no network, or one that ComfyUI cannot load.
    """

    latent_channels: int = 8
    autoencoder_width: int = 64
    unet_channels: tuple[int, ...] = (64, 128, 128)
    unet_heads: int = 4
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    embedding_rank: int = 16
    native_size: int = 256

    def __post_init__(self) -> None:
        if not self.unet_channels or any(width < 32 or width % 32 for width in self.unet_channels):
            raise BadInput("U-Net channels in multiples of 32", str(self.unet_channels), "Use 64, 96, 128, …")
        if any(width % self.unet_channels[0] for width in self.unet_channels):
            remedy = "Use for example 96 192 192: ComfyUI loads no others."
            raise BadInput("U-Net channels in multiples of the first", str(self.unet_channels), remedy)
        if min(self.unet_heads, self.text_width, self.text_layers) < 1:
            got = f"{self.unet_heads} heads, text width {self.text_width}, {self.text_layers} text layers"
            raise BadInput("heads, text width and text layers of at least 1", got, "Raise them.")
        if any(width % self.unet_heads for width in self.unet_channels) or self.text_width % self.text_heads:
            got = f"{self.unet_channels} by {self.unet_heads}, text {self.text_width} by {self.text_heads}"
            raise BadInput("widths that the heads divide", got, "Choose other widths or heads.")


@dataclass(frozen=True, slots=True)
class Request:
    """One piece of training.

    Attributes:
        pictures: Folder of pictures, with or without a manifest.
        run: Folder of this run: state, log, samples. A run that was begun there is continued.
        stage: Which half to train.
        minutes: Stop, saved, after this long.
        steps: Stop, saved, when this many steps have been made in all.
        start: Model folder to begin from when the run folder is empty; ``None`` begins from random weights.
        export: Where to write the model folder (fp16) at the end; ``None`` writes none.
        size: Side of the training crops in pixels.
        batch: Crops per step.
        rate: Peak learning rate; it rises over 100 steps, then falls to a twentieth by ``horizon``.
        horizon: Step at which the learning rate ends its fall.
        shallow: Autoencoder steps made first with all residual blocks left out (they begin as identities).
        coarse: Step up to which the blocks at full and half resolution are left out.
        perceptual: Weight of the perceptual term in the autoencoder's loss.
        pool: Crops encoded at a time for the denoiser; after ``pool_steps`` steps others are encoded.
        pool_steps: How long a pool is used.
        low_noise: Share of the denoiser's rows that are drawn from t < 200 alone, where quality is read.
        seed: Seed of everything that is drawn.
        device: Where to train.
        precision: ``bf16`` runs under autocast, ``fp32`` does not; ``auto`` is bf16 on a GPU.
        save_minutes: Minutes between two saves of the state.
        measured: Held-back pictures that the autoencoder is measured on at the end.
        memory: GB of decoded pictures to keep; what does not fit is read again when it is drawn.
        architecture: Sizes, used only when beginning from random weights.
    """

    pictures: Path
    run: Path
    stage: Stage = "autoencoder"
    minutes: float = 10.0
    steps: int | None = None
    start: Path | None = None
    export: Path | None = None
    size: int = 128
    batch: int = 16
    rate: float = 1e-3
    horizon: int = 50_000
    shallow: int = 1000
    coarse: int = 5000
    perceptual: float = 0.0
    pool: int = 2048
    pool_steps: int = 500
    low_noise: float = 0.4
    seed: int = 0
    device: str = "cpu"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    save_minutes: float = 2.0
    measured: int = 24
    memory: float = 2.0
    architecture: Architecture = Architecture()

    def __post_init__(self) -> None:
        if self.stage not in ("autoencoder", "denoiser"):
            raise BadInput("stage 'autoencoder' or 'denoiser'", repr(self.stage), "Name one of the two halves.")
        if self.size % 32:
            raise BadInput("a crop side divisible by 32", str(self.size), "Use 64, 128 or 256.")
        if self.batch < 1 or self.pool < self.batch or self.minutes <= 0:
            got = f"batch {self.batch}, pool {self.pool}, minutes {self.minutes}"
            raise BadInput("batch ≥ 1, pool ≥ batch, minutes > 0", got, "Raise them.")
        if not 0 <= self.memory < math.inf:
            raise BadInput("a memory of 0 GB or more", str(self.memory), "0 reads every picture again each time.")
        if not 0 <= self.low_noise <= 1:
            raise BadInput("a share from 0 to 1", f"low_noise {self.low_noise}", "0 draws all levels alike.")

    @property
    def kept_bytes(self) -> int:
        """``memory`` in bytes."""
        return int(self.memory * 1024**3)

    @property
    def autocast(self) -> bool:
        """Whether forwards run in bf16."""
        return self.precision == "bf16" or (self.precision == "auto" and self.device.startswith("cuda"))
