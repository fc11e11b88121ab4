"""What restoration, and each branch, adds to a DiffV2IQA head: the same training without it, on the same pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ..benchmark.significance import compare
from ..methods.diff_v2_iqa_head import fitting_shape
from ..nets.diff_v2 import Branch
from ..restoration.contract import Restored
from ..restoration.contract import Watch as CallsWatch
from .diff_v2 import DiffResult, train_diff_v2
from .genziqa_world import Alone, World
from .stepping import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ..restoration.contract import Restorer
    from .diff_v2_request import DiffRequest

#: The whole method, and what is left out of the others.
WHOLE = "both branches"
UNRESTORED, VCG, VDA = "the picture in place of its restorations", "VCG alone", "VDA alone"
_FOLDERS = {UNRESTORED: "unrestored", VCG: "vcg", VDA: "vda"}


class Unrestored:
    """A :class:`~..restoration.contract.Restorer` that gives every picture back three times, as it is.

    Args:
        noise_levels: That it claims for them.
    """

    name = "none"

    def __init__(self, noise_levels: tuple[float, float, float]) -> None:
        self._levels = noise_levels

    @property
    def identity(self) -> Mapping[str, str]:
        """Nothing decides but the picture."""
        return {"restorer": "none 1"}

    def restore(self, images: Tensor, *, watch: CallsWatch | None = None) -> Restored:
        """No calls, no reasons."""
        same = images[:, None].expand(-1, 3, -1, -1, -1)
        return Restored(same, self._levels, (0,) * len(images), (None,) * len(images))


def study(
    request: DiffRequest,
    whole: DiffResult,
    restorer: Restorer,
    watch: Watch | None = None,
    world: World | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any] | None:
    """Train the head of the request without restored pictures, and with either branch alone.

    Every training goes on where it was stopped; pictures, split, steps and seeds are the same.

    Args:
        request: Of the whole head; the others are written below its run's folder.
        whole: What came out of it, with its head.
        restorer: On the device.
        watch: Told of progress; may raise to stop.
        world: Several processes; alone when left out.
        device: To train on.

    Returns:
        Plain types for JSON: each head's agreement with people on the held-back pictures, and what the whole head is
        ahead of it, SRCC, paired over these pictures. ``None`` where minutes ran out.

    Raises:
        As :func:`.diff_v2.train_diff_v2`.
    """
    world = world or Alone()
    assert whole.head is not None
    low, middle, high = sorted(whole.head.meta.sigmas)
    others: dict[str, tuple[Restorer, Branch]] = {UNRESTORED: (Unrestored((low, middle, high)), "both")}
    if whole.head.nets.shape.branch == "both":
        others |= {VCG: (restorer, "vcg"), VDA: (restorer, "vda")}
    rows = [_row(WHOLE, whole, None)]
    for name, (other, branch) in others.items():
        result = train_diff_v2(_without(request, _FOLDERS[name], branch), other, watch, world, device)
        if result.head is None:
            return None
        rows.append(_row(name, result, whole))
    return {"data": request.data.name, "steps": request.steps, "seed": request.seed, "heads": rows}


def _without(request: DiffRequest, folder: str, branch: Branch) -> DiffRequest:
    run = request.run / folder
    shape = fitting_shape(request.settings, request.shape)
    if shape.branch == "both":
        shape = replace(shape, branch=branch)
    shared = request.shared or request.run
    own_vit = request.own_vit and branch != "vda"
    return replace(request, out=run / "head.safetensors", run=run, shape=shape, shared=shared, own_vit=own_vit)


def _row(name: str, result: DiffResult, whole: DiffResult | None) -> dict[str, Any]:
    assert result.head is not None
    ahead = None
    if whole is not None:
        theirs = {picture: score for picture, score, _ in result.held_back}
        both = [(score, theirs[picture], mos) for picture, score, mos in whole.held_back if picture in theirs]
        ahead = compare(*zip(*both, strict=True)).to_dict()
    return {
        "head": name,
        "weights": result.head.digest(),
        "agreement": {name: value for name, value in result.validation.items() if name != "steps"},
        "whole_less_this": ahead,
    }
