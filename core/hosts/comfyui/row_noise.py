"""Noise of its own for every seed in one batch: what is drawn before sampling, and what samplers draw on the way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.k_diffusion.sampling as k_samplers
import comfy.sample
import torch

#: Where ComfyUI's own samplers get noise samplers from: name in their module.
_FACTORIES = ("default_noise_sampler", "BrownianTreeNoiseSampler")


def starting_noise(latent: dict[str, Any], seeds: Sequence[int]) -> torch.Tensor:
    """What KSampler draws for each seed, one below the other: [seeds × rows of the latent, …]."""
    index = latent.get("batch_index")
    return torch.cat([comfy.sample.prepare_noise(latent["samples"], seed, index) for seed in seeds])


@contextmanager
def noise_of_each_seed(seeds: Sequence[int], rows: int, live: Callable[[], Sequence[int]]) -> Iterator[None]:
    """Inside the block, samplers that ask for a noise sampler get one that draws for every seed by itself.

    ComfyUI's samplers make their noise sampler from one seed for the whole batch. They look the factory up in their
    module each time, so the two factories there stand aside for the duration of one sampling. What a seed draws is what
    it draws alone, whichever kind of noise its sampler wants, and in whichever version of ComfyUI.

    Args:
        seeds: In the order of the batch.
        rows: Rows of the batch per seed, next to one another.
        live: The rows that are still computed: for a seed without one nothing is drawn.
    """
    plain = {name: getattr(k_samplers, name) for name in _FACTORIES}
    for name, factory in plain.items():
        setattr(k_samplers, name, _per_seed(factory, seeds, rows, live))
    try:
        yield
    finally:
        for name, factory in plain.items():
            setattr(k_samplers, name, factory)


def _per_seed(
    factory: Callable[..., Any], seeds: Sequence[int], rows: int, live: Callable[[], Sequence[int]]
) -> Callable[..., Any]:
    signature = inspect.signature(factory)

    def make(x: torch.Tensor, *args: Any, **named: Any) -> Callable[..., torch.Tensor]:
        if len(x) != rows * len(seeds):
            return factory(x, *args, **named)  # some other sampling within this one
        given = signature.bind(x, *args, **named)
        each = []
        for place, seed in enumerate(seeds):
            given.arguments["x"], given.arguments["seed"] = x[place * rows : (place + 1) * rows], seed
            each.append(factory(*given.args, **given.kwargs))

        def draw(*steps: Any) -> torch.Tensor:
            wanted = {row // rows for row in live()}
            noise = torch.zeros_like(x)
            for place, sampler in enumerate(each):
                if place in wanted:
                    noise[place * rows : (place + 1) * rows] = sampler(*steps)
            return noise

        return draw

    return make
