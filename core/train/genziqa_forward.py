"""From drawn pictures to raw GenzIQA values that carry gradients to the context and the LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..backbone.adaptation import CrossLora, Where
from ..backbone.schedule import noised, sigma_of_timestep
from ..methods.genziqa import signals
from ..methods.genziqa_head import GenzHead
from ..methods.prompt_reader import attention_taps
from ..methods.prompt_scores import alignment, noise_error, recorded_alignment
from ..taps.recorder import Recorder
from .genziqa_data import Drawn
from .genziqa_latents import Latents, Wanted

if TYPE_CHECKING:
    from ..backbone.adaptation import AdaptableBackbone
    from ..backbone.contracts import Conditioning


class Adaptation(nn.Module):
    """A head's context and LoRA as parameters; module names may hold no dots, so these have bars."""

    def __init__(self, head: GenzHead) -> None:
        super().__init__()
        for name, vectors in sorted(head.prompts.context.items()):
            self._add(f"context {name}", vectors)
        for (tap, part), (down, up) in sorted(head.lora.layers.items()):
            self._add(f"lora {tap} {part} down", down)
            self._add(f"lora {tap} {part} up", up)

    def _add(self, name: str, value: Tensor) -> None:
        self.register_parameter(name.replace(".", "|"), nn.Parameter(value.detach().float().clone()))

    def onto(self, head: GenzHead) -> GenzHead:
        """The head with these parameters, which stay connected for gradients."""
        found = {name.replace("|", "."): value for name, value in self.named_parameters()}
        context = {name: found[f"context {name}"] for name in head.prompts.context}
        layers: dict[Where, tuple[Tensor, Tensor]] = {
            (tap, part): (found[f"lora {tap} {part} down"], found[f"lora {tap} {part} up"])
            for tap, part in head.lora.layers
        }
        return replace(head, prompts=replace(head.prompts, context=context), lora=CrossLora(layers, head.lora.alpha))


def raw_values(latents: Latents, head: GenzHead, drawn: Sequence[Drawn]) -> Tensor:
    """The raw value of each drawn picture [n] on the CPU; pictures of one size share a forward."""
    adapted = latents.backbone.adapted(head.lora)
    conditioning = adapted.embed_soft(head.prompts)
    encoded = latents.of([Wanted(one.image.path, one.mirrored, one.kind, one.severity) for one in drawn])
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, latent in enumerate(encoded):
        groups.setdefault(tuple(latent.shape), []).append(place)
    values: dict[int, Tensor] = {}
    for places in groups.values():
        z = torch.stack([encoded[place] for place in places])
        found = _values(adapted, head, conditioning, z, [drawn[place] for place in places])
        values.update(zip(places, found, strict=True))
    return torch.stack([values[place] for place in range(len(drawn))])


def _values(
    backbone: AdaptableBackbone, head: GenzHead, conditioning: Conditioning, z: Tensor, drawn: Sequence[Drawn]
) -> Tensor:
    settings, family, count = head.settings, backbone.family, len(drawn)
    eps = torch.stack([backbone.noise(z.shape[1:], one.noise) for one in drawn]).to(z.dtype)
    z = z.to(eps.device)
    sigma = torch.tensor([sigma_of_timestep(one.timestep, family.prediction) for one in drawn], device=z.device)
    clean, twice = z.repeat(2, 1, 1, 1), sigma.repeat(2)
    z_t = noised(clean, eps.repeat(2, 1, 1, 1), twice, family.prediction)
    rows = conditioning.rows([0] * count + [1] * count)
    taps = [tap for tap in attention_taps(family.taps, None) if tap.name in head.taps]
    recorder = Recorder.of(taps, alignment(settings.temperature))
    error = torch.zeros(2 * count)
    if settings.bias_weight:
        error = noise_error(backbone.denoise(z_t, twice, rows, recorder), clean, twice, family.prediction).cpu()
    else:
        backbone.features(z_t, twice, rows, recorder)
    answer, _ = recorded_alignment(recorder, 2 * count)
    attention, bias = signals(answer.view(2, count).T[..., None], error.view(2, count).T[..., None], settings)
    return (attention + settings.bias_weight * bias)[:, 0]
