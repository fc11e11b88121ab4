"""What halving would have seen: the score of every candidate's predicted clean picture on its way, recorded once.

One JSON object a line: a heading, then one line per prompt-seed group. A recording that was stopped goes on behind its
last whole line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ..errors import BadInput, UnreadableFile
from ..files import unwritable
from ..methods.contract import Scorer
from ..nets.critic_ldm import SHIPPED
from ..records import ScoreSpec
from ..train.ldm.captions import caption

_CONTENTS = ("landscape", "portrait", "building", "animal", "object", "vehicle", "food", "abstract", "illustration", "")


@dataclass(frozen=True, slots=True)
class RecordRequest:
    """What is sampled.

    Attributes:
        groups: Prompts, each with its own seeds.
        candidates: Seeds per prompt.
        steps: Sampling steps.
        looks: After which steps the predicted clean picture is scored, rising from 1 to ``steps`` − 1.
        size: Side of the pictures in pixels.
        guidance: Classifier-free guidance; 1 halves the cost.
        seed: The first seed; also draws the prompts.
        ahead: Denoiser calls of the short run to the end that each look takes, one number for all or one each; 0
            looks at the predicted clean picture.
        precision: ``bf16`` runs the model (not the judge) under autocast, ``fp32`` does not.
    """

    groups: int = 200
    candidates: int = 16
    steps: int = 10
    looks: tuple[int, ...] = (2, 3, 4, 6)
    size: int = 128
    guidance: float = 3.0
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    ahead: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.groups < 2 or self.candidates < 4 or self.steps < 2:
            got = f"{self.groups} groups, {self.candidates} candidates, {self.steps} steps"
            raise BadInput("at least 2 groups, 4 candidates and 2 steps", got, "Raise them.")
        if min(self.ahead, default=-1) < 0 or len(self.ahead) not in (1, len(self.looks)):
            expected = f"one number of at least 0 for all looks, or {len(self.looks)}"
            raise BadInput(expected, str(list(self.ahead)), "0 looks at the predicted picture.")
        inside = all(1 <= look < self.steps for look in self.looks)
        if not self.looks or not inside or sorted(set(self.looks)) != list(self.looks):
            raise BadInput(f"rising looks from 1 to {self.steps - 1}", str(list(self.looks)), "Name steps in order.")

    @property
    def tries(self) -> dict[int, int]:
        """Step of a look → denoiser calls of its short run."""
        return dict(zip(self.looks, self.ahead * len(self.looks) if len(self.ahead) == 1 else self.ahead, strict=True))

    def prompt(self, group: int) -> str:
        """The prompt of a group: clean captions as the embedded model was trained on."""
        draw = torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + group)
        return caption("", 0, _CONTENTS[group % len(_CONTENTS)], draw)

    def seeds(self, group: int) -> list[int]:
        """The seeds of a group; no two groups share one."""
        first = self.seed + group * self.candidates
        return list(range(first, first + self.candidates))


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt with its seeds.

    Attributes:
        number: From 0.
        prompt: What was asked for.
        previews: Scores [looks][candidates] of the predicted clean pictures; ``None`` where there is none.
        finals: Scores of the finished pictures, likewise.
    """

    number: int
    prompt: str
    previews: tuple[tuple[float | None, ...], ...]
    finals: tuple[float | None, ...]


class Sampler(Protocol):
    """A model as the recording needs it."""

    def __call__(self, prompt: str, seeds: Sequence[int]) -> Iterator[Tensor]:
        """Predicted clean pictures [N, 3, H, W] at each look, then the finished ones."""
        ...


def embedded_sampler(request: RecordRequest, model: Path | None, device: str) -> Sampler:
    """The embedded model, or another model folder of its form, through diffusers."""
    from ..hosts.diffusers.embedded import load_embedded
    from ..hosts.diffusers.sampling import predicted_clean, to_images

    pipeline = load_embedded(SHIPPED if model is None else model).to(device)
    pipeline.vae.to(memory_format=torch.channels_last)  # decodes in two thirds of the time on a CPU
    autocast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=request.precision == "bf16")

    def sample(prompt: str, seeds: Sequence[int]) -> Iterator[Tensor]:
        passing = predicted_clean(
            pipeline,
            prompt,
            seeds,
            size=request.size,
            steps=request.steps,
            guidance=request.guidance,
            looks=request.tries,
        )
        for _ in range(len(request.looks) + 1):
            with autocast:  # not around the yield: the judge's precision is its own
                images = to_images(pipeline, next(passing))
            yield images

    return sample


def model_digest(model: Path | None) -> str:
    """Which denoiser it was: the start of the weights' SHA-256."""
    folder = SHIPPED if model is None else model
    try:
        return hashlib.sha256((folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UnreadableFile("a model folder of the embedded model's form", str(folder), "Check --model.") from error


def record_group(
    request: RecordRequest,
    sample: Sampler,
    scorer: Scorer,
    number: int,
    finals: tuple[float | None, ...] | None = None,
) -> Group:
    """Sample and score one group: to the end, or to the last look where the finished pictures' scores are known."""
    prompt, looks = request.prompt(number), len(request.looks)
    passing = islice(sample(prompt, request.seeds(number)), looks if finals else looks + 1)
    rows = [tuple(scorer.score(images).values()) for images in passing]
    return Group(number, prompt, tuple(rows[:looks]), finals or rows[-1])


class Recording:
    """The file, open for appending."""

    def __init__(self, path: Path, request: RecordRequest, spec: ScoreSpec, model: str) -> None:
        """Open or create.

        Raises:
            BadInput: the file holds a recording of something else.
        """
        self.path = path
        heading = {"halving_record": 1, "request": asdict(request), "spec": spec.to_dict(), "model": model}
        self._heading = json.loads(json.dumps({**heading, "request": {**asdict(request), "groups": 0}}, default=str))
        self.groups: dict[int, Group] = {}
        if path.exists() and path.stat().st_size:
            found, self.groups = read_recording(path)
            if found != self._heading:
                raise BadInput(
                    f"a recording with these settings, scorer and model at {path}", "another one", "Name another file."
                )
            self._cut_torn_line()
        else:
            self._append(self._heading)

    def finals_of(self, paths: Sequence[Path]) -> dict[int, tuple[float | None, ...]]:
        """The finished pictures' scores of other recordings, which may have looked otherwise.

        Raises:
            BadInput: one of another model, scorer, or way of sampling.
        """
        found: dict[int, tuple[float | None, ...]] = {}
        for path in paths:
            heading, groups = read_recording(path)
            if _sampling_of(heading) != _sampling_of(self._heading):
                raise BadInput(f"finished pictures as {self.path} samples them", f"others in {path}", "Leave it out.")
            found |= {number: group.finals for number, group in groups.items()}
        return found

    def add(self, group: Group) -> None:
        """Append a group and flush it to the disk."""
        self._append(asdict(group))
        self.groups[group.number] = group

    def _cut_torn_line(self) -> None:
        content = self.path.read_bytes()
        os.truncate(self.path, content.rfind(b"\n") + 1)

    def _append(self, row: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error


def _sampling_of(heading: dict[str, Any]) -> dict[str, Any]:
    """All that decides what the finished pictures score."""
    request = {name: value for name, value in heading["request"].items() if name not in ("looks", "ahead")}
    return {**heading, "request": request}


def read_recording(path: Path) -> tuple[dict[str, Any], dict[int, Group]]:
    """Heading and groups of a recording; a last line that a kill cut short is left out.

    Raises:
        UnreadableFile: it is none.
    """
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()
    try:
        heading, *rows = (json.loads(line) for line in lines)
        known = {
            row["number"]: Group(row["number"], row["prompt"], tuple(map(tuple, row["previews"])), tuple(row["finals"]))
            for row in rows
        }
        assert heading["halving_record"] == 1
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise UnreadableFile("a recording of latent-critic halving", str(path), "Name another file.") from error
    return heading, known


def read_recordings(paths: Sequence[Path]) -> tuple[dict[str, Any], dict[int, Group]]:
    """Several recordings of the same thing as one.

    Raises:
        BadInput: recordings of different things.
    """
    (heading, groups), *others = (read_recording(path) for path in paths)
    for path, (other, more) in zip(paths[1:], others, strict=True):
        if other != heading:
            raise BadInput(f"recordings like {paths[0]}", f"{path} with other settings", "Leave it out.")
        groups |= more
    return heading, groups
