"""The built-in judge: a small CNN that ships with the package; no checkpoint, a CPU is enough.

Score = head(EfficientNet-Lite0 statistics of native-scale crops and of a global view); see ``core/nets/views.py`` for
the size policy and the model card beside the weights for its accuracy.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..images import as_list, reason_unscorable
from ..memory import is_out_of_memory
from ..nets.judge import JudgeNetwork, describe
from ..nets.judge_file import JudgeFacts, digest, read
from ..nets.view_policy import most_crops, size_policy
from ..nets.views import crops, global_view
from ..records import Score, ScoreBatch, ScoreSpec
from .judge_map import judge_map

if TYPE_CHECKING:
    from ..heatmap import HeatMap
    from .contract import Images, Watch

SHIPPED = Path(__file__).parent.parent / "assets" / "judge" / "judge.safetensors"
BLIND_TO = "hands, faces, anatomy, meaning, and whether a picture fits its prompt"
_LEAST_SIDE = 32
#: One view's activations stay in a core's caches, and more were slower there; several threads want three between them,
#: and a GPU many. Measured at 512×512 px: see the row of the tower in ``latent-critic speed``.
_VIEWS_ON_CORE, _VIEWS_ON_CPU, _VIEWS_ON_GPU = 1, 3, 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Views:
    place: int
    crops: Tensor
    whole: Tensor


class Judge:
    """A scorer of single pictures, calibrated 0 (worst) … 100 (best) on ratings of photographs.

    Args:
        network: The module, already where it shall run (or held by a host that puts it there).
        facts: What its file says.
        weights: Digest of the file, recorded in the spec.
        device: Where views go; the module's own device when ``None``.
        policy: ``full``, or ``fast`` for fewer crops of each picture; see ``core/nets/view_policy.py``.
        views: How many 256-px views one forward holds at most, by the device when ``None``; halved on running out of
            memory.
    """

    def __init__(
        self,
        network: JudgeNetwork,
        facts: JudgeFacts,
        weights: str = "",
        *,
        device: torch.device | str | None = None,
        policy: str = "full",
        views: int | None = None,
    ) -> None:
        self.network, self.facts, self.device = network, facts, device
        self._most = most_crops(policy)
        self.views = (
            max(1, views) if views is not None else _views_on(device or network.backbone.stem.conv.weight.device)
        )
        self._spec = ScoreSpec(
            name="judge",
            scale=(0.0, 100.0),
            calibrated_on=facts.calibrated_on,
            centre=facts.centre,
            spread=facts.spread,
            size_policy=facts.size_policy if policy == "full" else size_policy(self._most),
            blind_to=BLIND_TO,
            # Named only where it is not the default, so that scores of earlier versions still compare.
            settings={"weights": weights, "format": facts.format} | ({} if policy == "full" else {"policy": policy}),
        )

    @classmethod
    def load(
        cls,
        device: torch.device | str = "cpu",
        path: str | Path = SHIPPED,
        *,
        dtype: torch.dtype = torch.float32,
        ops: Any = nn,
        policy: str = "full",
    ) -> Judge:
        """The shipped judge, or one of your own training.

        Args:
            device: Where it runs.
            path: A file written by ``latent-critic train judge``.
            dtype: Of the convolutions; the head stays in fp32.
            ops: Layers of a host that casts weights by itself, in place of ``torch.nn``.
            policy: ``full``, or ``fast`` for fewer views: quicker, a little less agreement.

        Raises:
            UnreadableFile: no judge at ``path``.
            BadInput: no such policy.
        """
        network, facts = read(path, ops)
        network.backbone.to(dtype=dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(network.to(device), facts, digest(path), policy=policy)

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean."""
        return self._spec

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """Score every image, in order; prompts are not looked at.

        Memory does not grow with the number of images: views are cut, scored and dropped group by group.
        """
        found = as_list(images)
        reasons = {place: reason_unscorable(image, _LEAST_SIDE) for place, image in enumerate(found)}
        scores = {place: Score(None, place, reason=reason) for place, reason in reasons.items() if reason is not None}
        done = len(scores)
        for group in self._groups([(p, image) for p, image in enumerate(found) if reasons[p] is None]):
            for views, value in zip(group, self._values(group), strict=True):
                scores[views.place] = Score.of(value, views.place)
            done += len(group)
            if watch is not None:
                watch(done, len(found))
        return ScoreBatch(self._spec, tuple(scores[place] for place in range(len(found))))

    def heat_map(self, image: Tensor, *, watch: Watch | None = None) -> HeatMap:
        """What each place of one picture [3, H, W] adds to its score.

        Raises:
            BadInput: a picture that cannot be scored.
        """
        return judge_map(self.network, image, device=self.device, most=self._most, least_side=_LEAST_SIDE, watch=watch)

    def _groups(self, images: Sequence[tuple[int, Tensor]]) -> Iterator[list[_Views]]:
        """Pictures whose views fill one forward, in order."""
        group: list[_Views] = []
        for place, image in images:
            group.append(_Views(place, crops(image, self._most), global_view(image)))
            if sum(len(views.crops) + 1 for views in group) >= self.views:
                yield group
                group = []
        if group:
            yield group

    @torch.inference_mode()
    def _values(self, group: Sequence[_Views]) -> list[float]:
        rows = self._statistics([views.crops for views in group] + [views.whole for views in group])
        described = [describe(c[None], w) for c, w in zip(rows[: len(group)], rows[len(group) :], strict=True)]
        return self.network.head(torch.cat(described)).float().tolist()

    def _statistics(self, stacks: Sequence[Tensor]) -> list[Tensor]:
        """Statistics of each stack of views, computed together for views of one size, each stack's rows together."""
        found: dict[int, Tensor] = {}
        for size in dict.fromkeys(stack.shape[-2:] for stack in stacks):
            places = [place for place, stack in enumerate(stacks) if stack.shape[-2:] == size]
            rows = self._forward(torch.cat([stacks[place] for place in places]))
            parts = rows.split([len(stacks[place]) for place in places])
            found.update(zip(places, parts, strict=True))
        return [found[place] for place in range(len(stacks))]

    def _forward(self, views: Tensor) -> Tensor:
        """Views [N, 3, h, w] → [N, D], in as few chunks as memory allows."""
        parts: list[Tensor] = []
        while sum(len(part) for part in parts) < len(views):
            start = sum(len(part) for part in parts)
            try:
                parts.append(self._chunk(views[start : start + self.views]))
            except (RuntimeError, MemoryError) as error:
                if self.views == 1 or not is_out_of_memory(error):
                    raise
                self.views = max(1, self.views // 2)
                _log.warning("The judge ran out of memory; going on with %d views at a time.", self.views)
        return torch.cat(parts)

    def _chunk(self, views: Tensor) -> Tensor:
        weight = self.network.backbone.stem.conv.weight
        device = weight.device if self.device is None else self.device
        views = views.to(device=device, dtype=weight.dtype).contiguous(memory_format=torch.channels_last)
        return self.network.statistics(views)


def _views_on(device: torch.device | str) -> int:
    """How many views a forward should hold there."""
    if torch.device(device).type != "cpu":
        return _VIEWS_ON_GPU
    return _VIEWS_ON_CORE if torch.get_num_threads() == 1 else _VIEWS_ON_CPU
