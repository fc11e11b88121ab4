"""What a family is as data: how a model of it is recognised, and what is then known of it."""

from __future__ import annotations

from dataclasses import dataclass

from ..contracts import Family, Prediction, Tap


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a host can tell of a loaded model before its family is known.

    Attributes:
        config: The name of the model's configuration, as ComfyUI's detection calls it (``SD15``, ``SDXL`` …); other
            hosts translate to these names.
        prediction: What the network predicts *as it is loaded now*, or another word for an unknown rule.
        in_channels: Channels that the first layer takes.
        out_channels: Channels that the last layer gives.
    """

    config: str
    prediction: str
    in_channels: int
    out_channels: int


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """One line of the registry: a model is of this family when every condition holds.

    Attributes:
        name: The family's name.
        configs: Configurations that belong to it.
        predictions: Prediction rules that belong to it.
        in_channels: Accepted input channels: 4 for text to image, 9 for inpainting checkpoints.
        latent_channels: Channels of z.
        latent_stride: Image pixels per latent pixel.
        native_size: Image side in training.
        text_layout: Its text encoders, joined by ``+``; several possible ones are set apart by ``|``.
        patch: Latent pixels per token of the network's grid.
        guidance: The distilled guidance that the network is told, where it takes one.
        words_from: Whose tokens the attention's columns begin with, where it is not the first encoder of the layout.
    """

    name: str
    configs: frozenset[str]
    predictions: tuple[Prediction, ...]
    in_channels: tuple[int, ...]
    latent_channels: int
    latent_stride: int
    native_size: int
    text_layout: str
    patch: int = 1
    guidance: float | None = None
    words_from: str = ""

    def takes(self, facts: ModelFacts) -> bool:
        """Whether this row describes the model."""
        return (
            facts.config in self.configs
            and facts.prediction in self.predictions
            and facts.in_channels in self.in_channels
            and facts.out_channels == self.latent_channels
        )

    def family(self, prediction: Prediction, taps: tuple[Tap, ...]) -> Family:
        """The family of one model: this row, the rule it predicts by, and its own taps."""
        return Family(
            name=self.name,
            prediction=prediction,
            latent_channels=self.latent_channels,
            latent_stride=self.latent_stride,
            native_size=self.native_size,
            text_layout=self.text_layout,
            taps=taps,
            patch=self.patch,
            guidance=self.guidance,
            words_from=self.words_from,
        )
