"""DiffusersBackbone: a diffusers pipeline as a Backbone; gradients flow wherever they are switched on."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...backbone.adaptation import PARTS, CrossLora, SoftPrompts, TextSpace, Where
from ...backbone.contracts import Conditioning, Family
from ...backbone.eager import uncompiled
from ...backbone.families import recognise
from ...backbone.fingerprint import Fingerprint
from ...backbone.lengths import cut, same_length
from ...errors import BadInput, UnsupportedFamily
from ...memory import in_chunks
from . import identity, memory
from .adapters import names
from .autoencoder import PipelineVAE
from .denoiser import denoiser_of
from .names import Places
from .parts import Parts
from .recording import EnoughRecorded, lora_beside, matrix, residuals_beside
from .text import PipelineText
from .transformer_text import TransformerText
from .unet import UNetDenoiser

if TYPE_CHECKING:
    from ...taps.recorder import Recorder


#: A pipeline's parts that have weights.
_PARTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


class DiffusersBackbone:
    """A pipeline, or the embedded model. Nothing stays on its modules.

    SD 1.x, SD 2.x, SDXL, SD3, Flux.1, Flux.2, Lumina 2, Z-Image, Qwen-Image and Wan 2.1.

    Args:
        pipeline: With ``unet`` and ``scheduler``, or ``transformer``; its VAE and its text encoders are needed for
            :meth:`encode`, :meth:`decode` and :meth:`embed` only.
        most_rows: Rows in one forward at most.

    Raises:
        BadInput: no such network, or one whose weights are not in memory.
        UnsupportedFamily: a model of no known family.
        MismatchedBackbone: a VAE of other latents.
    """

    def __init__(self, pipeline: Any, most_rows: int = 32) -> None:
        self._denoiser = denoiser_of(pipeline)
        self._parts = Parts(pipeline)
        self._pipeline, self._most_rows = pipeline, most_rows
        self._unet = self._denoiser.network
        self._places = self._denoiser.places if isinstance(self._denoiser, UNetDenoiser) else Places()
        self._family = recognise(self._denoiser.facts, tuple(self._denoiser.order))
        vae = getattr(pipeline, "vae", None)
        self._vae = None if vae is None else PipelineVAE(vae, self._family, most_rows)
        self._found_text: PipelineText | TransformerText | None = None
        self._fingerprint: Fingerprint | None = None
        self._identity: Mapping[str, str] | None = None
        self._lora = CrossLora()

    @property
    def _text(self) -> PipelineText | TransformerText:
        if self._found_text is None:
            names = ["text_encoder", "tokenizer"]
            if "+" in self._family.text_layout:
                names += ["text_encoder_2", "tokenizer_2"]
            missing = [name for name in names if getattr(self._pipeline, name, None) is None]
            if missing:
                remedy = "Load the pipeline with its text encoders."
                raise BadInput("a pipeline with its text encoders", f"no {', '.join(missing)}", remedy)
            if isinstance(self._denoiser, UNetDenoiser):
                self._found_text = PipelineText(self._pipeline, self._family.text_layout)
            else:
                self._found_text = TransformerText(self._pipeline, self._family.name, self._family.words_from)
        return self._found_text

    def _need_vae(self) -> PipelineVAE:
        if self._vae is None:
            raise BadInput("a pipeline with a VAE", "none", "Load the pipeline with its VAE.")
        return self._vae

    @property
    def family(self) -> Family:
        """The family row of this model, with its own taps."""
        return self._family

    @property
    def fingerprint(self) -> Fingerprint:
        """The same sketch as in every host, read once; whether adapters lie over the weights, as it is now."""
        if self._fingerprint is None:
            self._fingerprint = identity.fingerprint(self._denoiser.weights(), self._unet, self._family.name)
        return replace(self._fingerprint, patched=bool(names(self._unet)))

    @property
    def identity(self) -> Mapping[str, str]:
        """What else decides a value: text encoders and VAE, read once; adapters and FreeU, as they are now."""
        if self._identity is None:
            self._identity = identity.identity(self._pipeline, self._unet, self.family.text_layout)
        return {**self._identity, **identity.over_weights(self._pipeline, self._unet)}

    @property
    def device(self) -> torch.device:
        """Where forwards run: also where an offloaded pipeline moves its parts for them."""
        return getattr(self._pipeline, "_execution_device", None) or next(self._unet.parameters()).device

    def encode(
        self, pixels: Tensor, *, value_range: tuple[float, float] = (-1.0, 1.0), sample: int | None = None
    ) -> Tensor:
        """Pixels [N, 3, H, W] in [0, 1] → latents; sides are cropped at the centre to multiples of the stride."""
        return self._need_vae().encode(pixels, value_range, sample, self.device)

    @property
    def has_tiny_decoder(self) -> bool:
        """A pipeline has one autoencoder."""
        return False

    def decode(self, latents: Tensor, *, differentiable: bool = False, tiny: bool = False) -> Tensor:
        """Latents → pixels [N, 3, H, W] in [0, 1]; not clamped when differentiable."""
        vae = self._need_vae()
        if tiny:
            raise BadInput("the pipeline's own autoencoder", "tiny", "Put an AutoencoderTiny into the pipeline.")
        return vae.decode(latents, self.device, differentiable=differentiable)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Texts → conditions, with the token spans of words."""
        try:
            return self._text.embed(prompts)
        finally:
            self._parts.rest()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Around a whole score: with the parts that were there at the beginning, which rest afterwards.

        Raises:
            BadInput: the pipeline has got other parts since this backbone was made.
        """
        self._parts.check()
        try:
            yield
        finally:
            self._parts.rest()

    def denoise(
        self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, recorder: Recorder | None = None
    ) -> Tensor:
        """Noised latents [N, C, h, w] at sigma [N] → the clean estimate x0, float32."""
        found = self._forwards(z_t, sigma, conditioning, recorder, stop=False)
        if len(found) == 1:
            return found[0][1]
        order = [row for rows, _ in found for row in rows]
        return torch.cat([part for _, part in found])[sorted(range(len(order)), key=order.__getitem__)]

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
        """How many rows of [C, h, w] one forward may hold in free memory; at least 1, at most the number given."""
        if decoder:
            vae = self._vae
            return 1 if vae is None else vae.rows_that_fit(latent_shape, self.device, backward=backward)
        row = memory.row_bytes(self._denoiser.order, latent_shape, self._unet.dtype, backward=backward)
        return memory.rows_that_fit(self.device, row, self._most_rows)

    @contextmanager
    def gradients(
        self, *, decoder: bool = True, denoiser: bool = False, networks: Sequence[torch.nn.Module] = ()
    ) -> Iterator[None]:
        """Gradients switched on for what goes through; the pipeline's own weights take none.

        Raises:
            BadInput: weights that were made under ``torch.inference_mode``, through which none can flow.
        """
        parts = [getattr(self._pipeline, name, None) for name in _PARTS]
        own = [weight for part in parts if isinstance(part, torch.nn.Module) for weight in part.parameters()]
        if any(weight.is_inference() for weight in own):
            remedy = "Load the pipeline outside torch.inference_mode()."
            raise BadInput("weights that gradients can go through", "weights made under inference mode", remedy)
        with torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
            for weight in own:
                if weight.requires_grad and weight.is_leaf:
                    stack.callback(weight.requires_grad_, True)
                    weight.requires_grad_(False)
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
        """(out, in) of every matrix of the text cross-attention.

        Raises:
            UnsupportedFamily: a transformer.
        """
        if not isinstance(self._denoiser, UNetDenoiser):
            raise UnsupportedFamily(
                "a U-Net (SD 1.x, SD 2.x, SDXL) with a text cross-attention to lay vectors and LoRA over",
                f"the transformer of {self._family.name}",
                "Use zero_shot or lgdm with this model.",
            )
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
    ) -> list[tuple[list[int], Tensor]]:
        if z_t.ndim != 4 or z_t.shape[1] != self._family.latent_channels or tuple(sigma.shape) != (len(z_t),):
            got = f"latents {list(z_t.shape)}, sigma {list(sigma.shape)}"
            raise BadInput(f"latents [N, {self._family.latent_channels}, h, w] and sigma [N]", got, "Encode images.")
        most = 1.0 if self._family.prediction == "flow" else math.inf
        if not bool((torch.isfinite(sigma) & (sigma >= 0) & (sigma <= most)).all()):
            expected = f"finite sigmas from 0 to {most:g}"
            raise BadInput(expected, str(sigma.tolist())[:80], "Take them from the model's schedule.")

        done: list[tuple[list[int], Tensor]] = []
        # Where a backward follows, all rows' graphs are kept anyway: splitting would spare nothing.
        fit = self._most_rows if torch.is_grad_enabled() else self.rows_that_fit(z_t.shape[1:])
        for rows in same_length(conditioning):

            def work(first: int, last: int, rows: list[int] = rows) -> None:
                part = rows[first:last]
                added = None if residuals is None else [values[part] for values in residuals]
                x, sigmas, text = z_t[part].to(self.device, torch.float32), sigma[part], cut(conditioning.rows(part))
                told = (recorder, sigmas.tolist(), part, x, text.tokens.shape[1])
                # Hooks fire in the order in which they are hung: the adapter's result is what a tap sees.
                with (
                    uncompiled(),
                    residuals_beside(self._unet, added),
                    lora_beside(self._places, self._lora),
                    self._denoiser.recording(*told, stop=stop),
                    suppress(EnoughRecorded),
                ):
                    done.append((part, self._denoiser.estimate(x, sigmas, text, self._family)))

            in_chunks(len(rows), fit, work, lambda: memory.give_back(self.device))
        if recorder is not None:
            recorder.calls += 1
        return done
