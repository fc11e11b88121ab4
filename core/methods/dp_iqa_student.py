"""The DP-IQA student as a scorer: a CNN of its own that needs no diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import BadInput
from ..images import as_list, reason_unscorable
from ..nets.dp_iqa_student import StudentNetwork
from ..records import Score, ScoreBatch, ScoreSpec
from .dp_iqa import ACADEMIC, BLIND_TO
from .native_size import to_native

if TYPE_CHECKING:
    from .contract import Images, Watch

SIDE = 512


class DpStudent:
    """Images alone → scores of about 0 to 100 that rank; a :class:`~.contract.Scorer`.

    Args:
        network: The student.
        weights: Digest of its file.
        run: The network where the host has put it; itself when left out.
        side: Of the squares that pictures are resized to (published: 512).
        academic: Whether the weights are the authors'.
    """

    def __init__(
        self,
        network: StudentNetwork,
        weights: str,
        run: Callable[[Tensor], Any] | None = None,
        *,
        side: int = SIDE,
        academic: bool = True,
    ) -> None:
        if side < 64:
            raise BadInput("a side of 64 or more", str(side), f"Published: {SIDE}.")
        self._run, self._side, self.academic = run or network, side, academic
        self._spec = ScoreSpec(
            name="dp_iqa",
            centre=50.0,
            spread=15.0,
            size_policy=f"the whole image resized (bicubic, antialiased) to {side}×{side} px, whatever its aspect",
            blind_to=BLIND_TO,
            settings={"weights": weights, "student": True, **({"use": ACADEMIC} if academic else {})},
        )

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean: they rank."""
        return self._spec

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """Score every image by itself; prompts are not looked at."""
        found = as_list(images)
        scores = []
        for place, image in enumerate(found):
            scores.append(self._one(place, image))
            if watch is not None:
                watch(place + 1, len(found))
        return ScoreBatch(self._spec, tuple(scores))

    @torch.no_grad()
    def _one(self, place: int, image: Tensor) -> Score:
        reason = reason_unscorable(image)
        if reason is not None:
            return Score(None, place, reason=reason)
        raw, _ = self._run(to_native(image, (self._side, self._side))[None])
        attributes = {"warnings": [ACADEMIC]} if self.academic else {}
        return Score.of(100.0 * float(raw[0]), place, attributes=attributes)
