"""DiffusersBackbone: a Stable Diffusion pipeline as a Backbone; gradients flow wherever they are switched on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...backbone.adaptation import PARTS, CrossLora, SoftPrompts, TextSpace, Where
from ...backbone.contracts import Conditioning, Family
from ...backbone.families import ModelFacts, recognise
from ...backbone.fingerprint import Fingerprint, sketch
from ...errors import BadInput
from .names import ldm_weights, places
from .recording import EnoughRecorded, lora_beside, matrix, recording, residuals_beside
from .text import PipelineText

if TYPE_CHECKING:
    from ...taps.recorder import Recorder

_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v"}
#: Configurations by the width of the text that they attend to.
_CONFIGS = {768: "SD15", 1024: "SD20", 2048: "SDXL"}


class DiffusersBackbone:
    """A pipeline with a U-Net: SD 1.x, SD 2.x, SDXL, or the embedded model. Nothing stays on its modules.

    Args:
        pipeline: With ``unet``, ``vae``, ``text_encoder``, ``tokenizer`` and ``scheduler`` (SDXL's with second ones).
        most_rows: Rows in one forward at most.

    Raises:
        UnsupportedFamily: a model of no known family.
    """

    def __init__(self, pipeline: Any, most_rows: int = 32) -> None:
        self._pipeline, self._unet, self._vae, self._most_rows = pipeline, pipeline.unet, pipeline.vae, most_rows
        self._places = places(self._unet)
        self._family = recognise(_facts(pipeline), tuple(self._places.order))
        self._text = PipelineText(pipeline, self._family.text_layout)
        shares = pipeline.scheduler.alphas_cumprod.double()
        self._log_sigmas = ((1.0 - shares) / shares).sqrt().log()
        self._fingerprint: Fingerprint | None = None
        self._lora = CrossLora()

    @property
    def family(self) -> Family:
        """The family row of this model, with its own taps."""
        return self._family

    @property
    def fingerprint(self) -> Fingerprint:
        """The same sketch as in every host; read once."""
        if self._fingerprint is None:
            weights = {name: weight for name, weight in ldm_weights(self._unet) if weight.ndim >= 2}

            def read(name: str, where: Sequence[int]) -> list[float]:
                flat = weights[name].detach().reshape(-1)
                return [float(flat[place].float()) for place in where]

            found = sketch([(name, weight.numel()) for name, weight in weights.items()], read)
            self._fingerprint = Fingerprint(self._family.name, found)
        return self._fingerprint

    @property
    def identity(self) -> Mapping[str, str]:
        """Text encoder and VAE are the pipeline's own and not told apart."""
        return {"model": "plain"}

    @property
    def device(self) -> torch.device:
        """Where forwards run."""
        return next(self._unet.parameters()).device

    def encode(
        self, pixels: Tensor, *, value_range: tuple[float, float] = (-1.0, 1.0), sample: int | None = None
    ) -> Tensor:
        """Pixels [N, 3, H, W] in [0, 1] → latents; sides are cropped at the centre to multiples of the stride."""
        low, high = value_range
        stride = self._family.latent_stride
        height, width = (side // stride * stride for side in pixels.shape[2:])
        if min(height, width) < stride:
            raise BadInput(f"pixels of at least {stride} a side", f"{list(pixels.shape)}", "Leave tiny images out.")
        top, left = (pixels.shape[2] - height) // 2, (pixels.shape[3] - width) // 2
        scaled = low + (high - low) * pixels[:, :, top : top + height, left : left + width]
        found = self._vae.encode(scaled.to(self.device, self._vae.dtype))
        if hasattr(found, "latents"):
            latents = found.latents
        elif sample is None:
            latents = found.latent_dist.mode()
        else:
            latents = found.latent_dist.sample(torch.Generator().manual_seed(sample))
        return (latents * self._vae.config.scaling_factor).float()

    @property
    def has_tiny_decoder(self) -> bool:
        """A pipeline has one autoencoder."""
        return False

    def decode(self, latents: Tensor, *, differentiable: bool = False, tiny: bool = False) -> Tensor:
        """Latents → pixels [N, 3, H, W] in [0, 1]; not clamped when differentiable."""
        if tiny:
            raise BadInput("the pipeline's own autoencoder", "tiny", "Put an AutoencoderTiny into the pipeline.")
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            raw = (latents / self._vae.config.scaling_factor).to(self.device, self._vae.dtype)
            pixels = (self._vae.decode(raw).sample.float() + 1.0) / 2.0
        return pixels if differentiable else pixels.clamp(0.0, 1.0)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Texts → conditions, with the token spans of words."""
        return self._text.embed(prompts)

    def denoise(
        self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, recorder: Recorder | None = None
    ) -> Tensor:
        """Noised latents [N, C, h, w] at sigma [N] → the clean estimate x0, float32."""
        found = [part for _, part in self._forwards(z_t, sigma, conditioning, recorder, stop=False)]
        return torch.cat(found) if len(found) > 1 else found[0]

    def features(self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, recorder: Recorder) -> None:
        """As :meth:`denoise`, ending each forward at the last tap that the recorder asks for; no x0."""
        self._forwards(z_t, sigma, conditioning, recorder, stop=True)

    def features_beside(
        self,
        z_t: Tensor,
        sigma: Tensor,
        conditioning: Conditioning,
        recorder: Recorder,
        residuals: Sequence[Tensor] | None,
    ) -> None:
        """As :meth:`features`, with residuals [N, C, h, w] added to every down level's last output."""
        self._forwards(z_t, sigma, conditioning, recorder, stop=True, residuals=residuals)

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Texts → CLIP's projected text features, not normalised [N, W], float32 on the CPU."""
        return self._text.features(prompts)

    def noise(self, shape: Sequence[int], seed: int) -> Tensor:
        """Standard normal noise, drawn on the CPU so that one seed gives the same everywhere."""
        return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)).to(self.device)

    def rows_that_fit(self, latent_shape: Sequence[int], *, backward: bool = False, decoder: bool = False) -> int:
        """The number given when this was made."""
        return self._most_rows

    @contextmanager
    def gradients(
        self, *, decoder: bool = True, denoiser: bool = False, networks: Sequence[torch.nn.Module] = ()
    ) -> Iterator[None]:
        """Gradients switched on; nothing else keeps them from flowing."""
        with torch.inference_mode(False), torch.enable_grad():
            yield

    # Laying vectors and LoRA over it ----------------------------------------------------------------------------------

    def text_spaces(self) -> Mapping[str, TextSpace]:
        """The text encoders' inputs, by letter."""
        return self._text.spaces()

    def suffixes(self, words: Sequence[str], context: int) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Token ids of each text after ``context`` vectors, for each encoder."""
        return self._text.suffixes(words, context)

    def start_token(self, encoder: str) -> int:
        """The token that every text begins with."""
        return self._text.start_token(encoder)

    def token_vectors(self, ids: Sequence[int], encoder: str) -> Tensor:
        """The encoder's own vectors of these tokens [n, width], float32 on the CPU."""
        return self._text.token_vectors(ids, encoder)

    def token_ids(self, vectors: Tensor, encoder: str) -> list[int | None]:
        """The token whose vector each row [n, width] is; ``None`` for one of no token."""
        return self._text.token_ids(vectors, encoder)

    def embed_soft(self, prompts: SoftPrompts) -> Conditioning:
        """Through the pipeline's own text encoder; differentiable in the vectors."""
        return self._text.embed_soft(prompts)

    def cross_shapes(self) -> Mapping[Where, tuple[int, int]]:
        """(out, in) of every matrix of the text cross-attention."""
        found = {}
        for tap, (_, attention) in self._places.attention.items():
            for part in PARTS:
                layer = matrix(attention, part)
                found[(tap, part)] = (int(layer.out_features), int(layer.in_features))
        return found

    def adapted(self, change: CrossLora) -> DiffusersBackbone:
        """The same model with LoRA beside its matrices; gradients reach the LoRA."""
        change.check(self.cross_shapes())
        other = copy.copy(self)
        other._lora = change
        return other

    def held_bytes(self) -> Mapping[str, int]:
        """Bytes of the LoRA matrices; no weight is replaced, so nothing is backed up."""
        return {"lora": self._lora.bytes, "backup": 0}

    def _forwards(
        self,
        z_t: Tensor,
        sigma: Tensor,
        conditioning: Conditioning,
        recorder: Recorder | None,
        *,
        stop: bool,
        residuals: Sequence[Tensor] | None = None,
    ) -> list[tuple[range, Tensor]]:
        if z_t.ndim != 4 or z_t.shape[1] != self._family.latent_channels or tuple(sigma.shape) != (len(z_t),):
            got = f"latents {list(z_t.shape)}, sigma {list(sigma.shape)}"
            raise BadInput(f"latents [N, {self._family.latent_channels}, h, w] and sigma [N]", got, "Encode images.")
        done: list[tuple[range, Tensor]] = []
        for first in range(0, len(z_t), self._most_rows):
            rows = range(first, min(len(z_t), first + self._most_rows))
            part = conditioning.rows(rows)
            sigmas = sigma[first : rows.stop].tolist()
            added = None if residuals is None else [values[first : rows.stop] for values in residuals]
            # Hooks fire in the order in which they are hung: the adapter's result is what a tap sees.
            with (
                residuals_beside(self._unet, added),
                lora_beside(self._places, self._lora),
                recording(self._places, recorder, sigmas, rows, stop=stop),
            ):
                try:
                    done.append((rows, self._one(z_t[first : rows.stop], sigma[first : rows.stop], part)))
                except EnoughRecorded:
                    continue
        if recorder is not None:
            recorder.calls += 1
        return done

    def _one(self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        dtype = self._unet.dtype
        level = sigma.to(self.device, torch.float32).view(-1, 1, 1, 1)
        z_t = z_t.to(self.device, torch.float32)
        x = z_t / (1.0 + level.square()).sqrt()
        tokens = conditioning.tokens.to(self.device, dtype)
        added = self._added(conditioning, z_t)
        out = self._unet(x.to(dtype), self._timesteps(sigma), tokens, added_cond_kwargs=added).sample.float()
        if self._family.prediction == "v":
            return z_t / (1.0 + level.square()) - out * level / (1.0 + level.square()).sqrt()
        return z_t - level * out

    def _timesteps(self, sigma: Tensor) -> Tensor:
        """The schedule's nearest timestep in log sigma, as ComfyUI takes it."""
        apart = (sigma.detach().double().cpu().log()[:, None] - self._log_sigmas).abs()
        return apart.argmin(1).to(self.device)

    def _added(self, conditioning: Conditioning, z_t: Tensor) -> dict[str, Tensor] | None:
        """SDXL: pooled text and six numbers: sizes as ComfyUI gives them by default."""
        if conditioning.pooled is None:
            return None
        height, width = (side * self._family.latent_stride for side in z_t.shape[2:])
        numbers = torch.tensor([height, width, 0, 0, height, width], device=self.device, dtype=self._unet.dtype)
        return {
            "text_embeds": conditioning.pooled.to(self.device, self._unet.dtype),
            "time_ids": numbers.repeat(len(z_t), 1),
        }


def _facts(pipeline: Any) -> ModelFacts:
    config = pipeline.unet.config
    told = str(pipeline.scheduler.config.prediction_type)
    name = "CriticLDM" if config.in_channels == 8 else _CONFIGS.get(config.cross_attention_dim, "unknown")
    return ModelFacts(name, _PREDICTIONS.get(told, told), config.in_channels, config.out_channels)
