"""ComfyBackbone: the MODEL, CLIP and VAE of the user's graph as a Backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from comfy import model_management
from torch import Tensor

from ...backbone.contracts import Conditioning, Family
from ...backbone.families import find_row, recognise
from ...backbone.fingerprint import Fingerprint
from ...backbone.lengths import cut, same_length
from ...errors import BadInput
from . import denoiser, facts, gradients, memory, pictures
from .autoencoder import Autoencoder
from .identity import identity
from .own_nets import PlacedNetwork
from .taps import tapping_of, taps_of
from .text import TextEncoder

if TYPE_CHECKING:
    from ...taps.recorder import Recorder


class ComfyBackbone:
    """The loaded model as a judge sees it. It works on a clone that shares the weights: nothing stays on the user's.

    Args:
        model: MODEL, with whatever LoRA and ModelSampling nodes the graph put on it.
        clip: CLIP; needed for :meth:`embed` only.
        vae: VAE; needed for :meth:`encode` and :meth:`decode` only.
        tiny_vae: A second VAE that is small (a TAESD), for ``decode(tiny=True)`` only.

    Raises:
        BadInput: no MODEL.
        UnsupportedFamily: the model is of no known family.
        MismatchedBackbone: CLIP or VAE belong to another family.
    """

    size_policy = Autoencoder.size_policy

    def __init__(self, model: Any, clip: Any = None, vae: Any = None, tiny_vae: Any = None) -> None:
        if not hasattr(model, "get_model_object"):
            raise BadInput(
                "a MODEL", type(model).__name__, "Connect the output of a checkpoint or diffusion model loader."
            )
        found = facts.model_facts(model)
        find_row(found)  # before the walk below, which is for known networks
        taps = taps_of(model.model.diffusion_model)
        self._family = recognise(found, tuple(taps.order))
        self._model, self._clip, self._loaded_vaes = model, clip, (vae, tiny_vae)
        self._patcher = denoiser.own_clone(model)
        self._tapping = tapping_of(taps, self._family.latent_channels)
        self._tapping.install(self._patcher)
        self._fingerprint: Fingerprint | None = None
        self._identity: Mapping[str, str] | None = None
        self._text = None if clip is None else TextEncoder(clip, self._family, taps.text_width, taps.pooled_width)
        self._vae, self._tiny = (
            None if given is None else Autoencoder(given, model.model, self._family) for given in (vae, tiny_vae)
        )

    @property
    def family(self) -> Family:
        """The family row of this model, with its own taps."""
        return self._family

    @property
    def fingerprint(self) -> Fingerprint:
        """A dtype-tolerant sketch of the unpatched weights; read once."""
        if self._fingerprint is None:
            self._fingerprint = facts.fingerprint(self._model, self._family.name)
        return self._fingerprint

    @property
    def identity(self) -> Mapping[str, str]:
        """What else decides a value: patches on the model, the CLIP and how it is set up, the VAE; read once."""
        if self._identity is None:
            self._identity = identity(self._model, self._clip, *self._loaded_vaes)
        return self._identity

    @property
    def device(self) -> torch.device:
        """Where forwards run and their results lie."""
        return self._patcher.load_device

    def encode(
        self, pixels: Tensor, *, value_range: tuple[float, float] = (-1.0, 1.0), sample: int | None = None
    ) -> Tensor:
        """Pixels [N, 3, H, W] in [0, 1] → latents [N, C, h, w] on :attr:`device`, in the model's scaled space.

        The posterior's mode unless ``sample`` gives a seed. Sides are cropped as :attr:`size_policy` says.
        """
        return self._need_vae().encode(pixels, value_range, sample).to(self.device)

    def in_model_space(self, samples: Tensor) -> Tensor:
        """A LATENT's samples as samplers give them → [N, C, h, w] in the model's scaled space, on :attr:`device`.

        Raises:
            BadInput: a video, or latents of other channels.
        """
        return pictures.from_host(self._model.model, samples.to(self.device, torch.float32), self._family)

    @property
    def has_tiny_decoder(self) -> bool:
        """Whether a tiny autoencoder was given."""
        return self._tiny is not None

    def decode(self, latents: Tensor, *, differentiable: bool = False, tiny: bool = False) -> Tensor:
        """Latents [N, C, h, w] → pixels [N, 3, H, W] in [0, 1]; not clamped when differentiable.

        A differentiable decode must lie inside :meth:`gradients`, its backward too.
        """
        vae = self._need_vae(tiny=tiny)
        return vae.decode_for_gradient(latents) if differentiable else vae.decode(latents)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Texts → conditions, cached per text.

        Raises:
            BadInput: no CLIP was given.
        """
        if self._text is None:
            raise BadInput("a CLIP", "none", "Connect the checkpoint's CLIP output.")
        return self._text.embed(prompts)

    def denoise(
        self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, recorder: Recorder | None = None
    ) -> Tensor:
        """Noised latents [N, C, h, w] at sigma [N] → the clean estimate x0, float32 on :attr:`device`."""
        return self._forwards(z_t, sigma, conditioning, recorder, stop=False)

    def features(self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, recorder: Recorder) -> None:
        """As :meth:`denoise`, ending each forward at the last tap that the recorder asks for; no x0."""
        self._forwards(z_t, sigma, conditioning, recorder, stop=True)

    def noise(self, shape: Sequence[int], seed: int) -> Tensor:
        """Standard normal noise, drawn on the CPU so that one seed gives the same everywhere."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(tuple(shape), generator=generator).to(self.device)

    def rows_that_fit(self, latent_shape: Sequence[int], *, backward: bool = False, decoder: bool = False) -> int:
        """How many rows of [C, h, w] one forward may hold in free memory; at least 1.

        Args:
            latent_shape: C, h, w of one row.
            backward: Counts what a backward needs too.
            decoder: Of the VAE's decoder instead of the denoiser.
        """
        if decoder:
            return 1 if self._vae is None else self._vae.rows_that_fit(latent_shape, backward=backward)
        return memory.rows_that_fit(self._patcher, latent_shape, backward=backward)

    def gradients(
        self, *, decoder: bool = True, denoiser: bool = False, networks: Sequence[torch.nn.Module] = ()
    ) -> AbstractContextManager[None]:
        """A context in which backwards work, also inside ComfyUI's executor.

        Args:
            decoder: Through a differentiable :meth:`decode`.
            denoiser: Through :meth:`denoise` and :meth:`features`.
            networks: Through these as well: networks of ours, placed or not.
        """
        patchers = [vae.patcher for vae in (self._vae, self._tiny) if decoder and vae is not None]
        patchers += [self._patcher] * denoiser
        model_management.load_models_gpu(patchers)
        for network in networks:
            if isinstance(network, PlacedNetwork):
                network.load()
        holders = [self._model.model.latent_format]
        return gradients.gradient_context(*(patcher.model for patcher in patchers), *networks, holders=holders)

    def _need_vae(self, *, tiny: bool = False) -> Autoencoder:
        if tiny and self._tiny is None:
            raise BadInput("a tiny autoencoder", "none", "Connect a TAESD for this model, or use the full decoder.")
        vae = self._tiny if tiny else self._vae
        if vae is None:
            raise BadInput("a VAE", "none", "Connect the checkpoint's VAE output.")
        return vae

    def _forwards(
        self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, recorder: Recorder | None, *, stop: bool
    ) -> Tensor:
        _check(z_t, sigma, conditioning, self._family)
        call = 0 if recorder is None else recorder.calls
        parts: list[tuple[list[int], Tensor]] = []
        z_t = z_t.float()
        for rows in same_length(conditioning):

            def work(first: int, last: int, rows: list[int] = rows) -> None:
                part = rows[first:last]
                text = cut(conditioning.rows(part))
                with self._tapping.recording(recorder, call=call, rows=part, stop=stop, tokens=text.tokens.shape[1]):
                    x0 = denoiser.denoise(self._patcher, z_t[part], sigma[part], text, self._family.guidance)
                parts.append((part, x0))

            memory.in_chunks(len(rows), self.rows_that_fit(z_t.shape[1:]), work)
        if recorder is not None:
            recorder.calls += 1
        if len(parts) == 1:
            return parts[0][1]
        out = torch.empty(z_t.shape, device=self.device)
        for part, x0 in parts:
            out[part] = x0
        return out


def _check(z_t: Tensor, sigma: Tensor, conditioning: Conditioning, family: Family) -> None:
    rows = z_t.shape[0]
    if z_t.ndim != 4 or rows < 1 or z_t.shape[1] != family.latent_channels:
        raise BadInput(
            f"latents [N, {family.latent_channels}, h, w]", f"shape {list(z_t.shape)}", "Encode images with this model."
        )
    most = 1.0 if family.prediction == "flow" else math.inf
    if not bool((torch.isfinite(sigma) & (sigma >= 0) & (sigma <= most)).all()):
        expected = "finite sigmas, 0 or more" if most > 1.0 else "sigmas from 0 to 1, as a flow model's are"
        raise BadInput(expected, str(sigma.tolist())[:80], "Take them from the model's schedule.")
    if tuple(sigma.shape) != (rows,) or conditioning.tokens.shape[0] != rows:
        raise BadInput(
            f"{rows} sigmas and {rows} conditions, one per latent",
            f"sigma {list(sigma.shape)}, conditions {conditioning.tokens.shape[0]}",
            "Repeat them: sigma.expand(N), conditioning.rows([0] * N).",
        )
