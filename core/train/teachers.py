"""Scorers as teachers of the judge: any of ours, or several together, with their maps where they have any."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadInput
from ..files import sweep, whole_file
from ..images import load_image
from ..methods.on_model import ON_MODEL, WITHOUT_HEAD, read_head, scorer_on, shipped_head
from .features import content_of

if TYPE_CHECKING:
    from ..methods.contract import Scorer

_SHARD = 20
#: Side that a teacher's map is averaged down to.
MAP_SIDE = 4
_RESTORES = "diff_v2_iqa"


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a teacher says of n pictures.

    Attributes:
        scores: [n] in the teacher's own units, higher is better; NaN where it gave none.
        maps: [n, values] of its quality maps; no columns for a teacher without maps.
    """

    scores: Tensor
    maps: Tensor


@dataclass(frozen=True, slots=True)
class Teacher:
    """One scorer.

    Raises:
        BadInput: weights that may be used for academic work alone: nothing that ships may be taught by them.
    """

    scorer: Scorer
    name: str = field(default="")

    def __post_init__(self) -> None:
        if getattr(self.scorer, "academic", False) or _academic(self.scorer.spec.settings):
            raise BadInput(
                "a teacher whose weights may teach", "weights for academic use only", "Use a head of your own training."
            )

    @torch.no_grad()
    def look(self, path: Path) -> tuple[float, Tensor]:
        """Score and pooled map of one picture."""
        image = load_image(path)
        read: Callable[..., Any] | None = getattr(self.scorer, "read", None)
        batch, maps = read([image]) if read is not None else (self.scorer.score([image]), [None])
        value, sign = batch[0].value, 1.0 if batch.spec.direction == "higher" else -1.0
        quality = maps[0]
        pooled = torch.zeros(0) if quality is None else F.adaptive_avg_pool2d(quality.float(), MAP_SIDE).flatten()
        return float("nan") if value is None else sign * value, pooled

    def lesson(self, paths: Sequence[Path], folder: Path, watch: Callable[[int, int], None] | None = None) -> Lesson:
        """Look at every picture; what was seen before is read from the folder.

        Raises:
            UnreadableFile: a picture cannot be read.
        """
        folder = folder / self.scorer.spec.digest
        sweep(folder)
        parts = []
        for first in range(0, len(paths), _SHARD):
            shard = paths[first : first + _SHARD]
            key = hashlib.sha256(json.dumps([content_of(path) for path in shard]).encode()).hexdigest()[:24]
            file = folder / f"{key}.safetensors"
            if not file.exists():
                self._write(file, shard)
            parts.append(load_file(file))
            if watch is not None:
                watch(first + len(shard), len(paths))
        width = max((part["maps"].shape[1] for part in parts), default=0)
        maps = [part["maps"] if part["maps"].shape[1] else torch.zeros(len(part["scores"]), width) for part in parts]
        return Lesson(torch.cat([part["scores"] for part in parts]), torch.cat(maps))

    def _write(self, file: Path, shard: Sequence[Path]) -> None:
        seen = [self.look(path) for path in shard]
        width = max(len(pooled) for _, pooled in seen)
        maps = torch.stack([pooled if len(pooled) else torch.zeros(width) for _, pooled in seen])
        with whole_file(file) as temporary:
            save_file({"scores": torch.tensor([value for value, _ in seen]), "maps": maps}, temporary)


def _academic(settings: Mapping[str, Any]) -> bool:
    """Whether a score's settings say ``use``, as academic weights alone do: its own, or those of a part of it."""
    if "use" in settings:
        return True
    parts = [part["spec"]["settings"] for part in settings.get("parts", ())]
    return any(_academic(part) for part in parts)


def on_the_scale(scores: Tensor, rated: Sequence[int], mos: Tensor) -> Tensor:
    """A teacher's scores brought to the ratings' scale by least squares on rated pictures.

    Raises:
        BadInput: scores that do not go up with the ratings, or too few of them.
    """
    x, y = scores[list(rated)].double(), mos.double()
    kept = x.isfinite()
    x, y = x[kept], y[kept]
    if len(x) < 3 or float(x.std()) == 0.0:
        raise BadInput("a teacher that tells three rated pictures apart", f"{len(x)} alike", "Use another teacher.")
    slope = float(((x - x.mean()) * (y - y.mean())).mean() / x.var(correction=0))
    if slope <= 0.0:
        raise BadInput("a teacher whose scores go up with the ratings", f"slope {slope:.3g}", "Use another teacher.")
    return (y.mean() + slope * (scores.double() - x.mean())).float().clamp(0.0, 100.0)


def build(text: str, model: str, device: str = "cpu") -> Teacher:
    """``NAME`` or ``NAME=FILE`` → a teacher; those on a diffusion model are run by diffusers.

    Without a file it is the head that ships, which is for the embedded model.

    Raises:
        BadInput: an unknown scorer, or one that needs a file; the authors' files of DP-IQA, which are academic use.
        UnreadableFile: a file is missing or damaged.
        MismatchedBackbone: a head of another model.
    """
    name, _, file = text.partition("=")
    names = ("judge", *ON_MODEL, _RESTORES)
    if name not in names:
        raise BadInput(f"a teacher out of {', '.join(names)}", repr(name), "Write NAME or NAME=FILE.")
    if name == "judge":
        from ..methods.judge import SHIPPED, Judge

        return Teacher(Judge.load(device, file or SHIPPED), name)
    if name == _RESTORES:
        return Teacher(_restoring(file, text, model, device), name)
    path = file or (shipped_head(name) if model == "embedded" else None)
    if bool(path) == (name in WITHOUT_HEAD):
        expected = f"{name} alone" if file else f"{name}=FILE, its head"
        raise BadInput(expected, text, "Leave the file out." if file else "Name the head's file.")
    if name == "dp_iqa" and file:
        _check_own(file)
    head = read_head(path) if path else None
    return Teacher(scorer_on(name, _backbone(model, device), head), name)


def _restoring(file: str, text: str, model: str, device: str) -> Scorer:
    """DiffV2IQA: it looks through a restorer, and at the model only where its head was trained with one."""
    from ..methods.diff_v2_iqa_make import SHIPPED, asks_for_model, make_diff_v2

    path = Path(file) if file else SHIPPED
    if not file and not path.is_file():
        raise BadInput(f"{_RESTORES}=FILE, its head", text, "Name the head's file.")
    head = read_head(path)
    if head.meta.method != _RESTORES:
        raise BadInput(f"a head for {_RESTORES}", f"one for {head.meta.method}", "Name the scorer that it is for.")
    backbone = _backbone(model, device) if asks_for_model(head) else None
    return make_diff_v2(head, backbone=backbone, device=device)


def _backbone(model: str, device: str) -> Any:
    from ..hosts.diffusers.backbone import DiffusersBackbone
    from ..hosts.diffusers.loading import load_pipeline

    return DiffusersBackbone(load_pipeline(model, device))


def _check_own(file: str) -> None:
    """Refuse the authors' files of DP-IQA."""
    from ..methods.dp_iqa_authors import kind_of, read_state
    from ..methods.dp_iqa_file import is_dp_iqa

    if Path(file).exists() and not is_dp_iqa(file):
        kind = kind_of(read_state(file))
        got = f"the authors' {kind}, for academic use only"
        raise BadInput("a head of your own training as a teacher", got, "Train one: latent-critic train dp-iqa.")
