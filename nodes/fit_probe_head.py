"""Fit Probe Head: collects finished samplings with their scores or ratings, and fits a head when there are enough."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..core.errors import BadInput, LatentCriticError, UnreadableFile
from ..core.heads.head import Head
from ..core.heads.head_file import load_head, save_head
from ..core.heads.rated_runs import RatedRuns
from ..core.hosts.comfyui.probe import Probe
from ..core.methods.probe import ProbeScorer
from ..core.methods.probe_fit import LEAST, Target, fit_probe_head, rows_of, told_of
from ._inputs import one
from ._latent_scores import latents_given
from ._scoring import merged_scores
from ._sockets import CATEGORY_ADVANCED, HeadSocket, ProbeSocket, ScoresSocket

_HEADS = "quality_heads"


class FitProbeHead(io.ComfyNode):
    """LATENT + LC_PROBE + scores or ratings → LC_HEAD."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticFitProbeHead",
            display_name="Fit Probe Head",
            category=CATEGORY_ADVANCED,
            description="Collects finished images over many runs, what Probe Model saw of each and its score or your "
            "rating, and fits a head as soon as there are enough. The head then tells such scores of later samplings "
            "without decoding. A head fitted to a scorer's scores estimates that scorer; only your ratings make it "
            "speak for you.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Latent.Input("latents", tooltip="The LATENT output of the sampler that used the probed model."),
                ProbeSocket.Input("probe", tooltip="The probe of the model that this sampler used."),
                io.String.Input(
                    "name",
                    default="my probe",
                    tooltip="Name of the collection and of the head's file in models/quality_heads. One name for each "
                    "model, probe setting and source of scores.",
                ),
                io.Int.Input(
                    "fit_at",
                    default=50,
                    min=LEAST,
                    max=100000,
                    tooltip="How many images to collect before a head is fitted. It is fitted again each time a tenth "
                    "more has come. Hundreds, of many prompts, are better than fifty.",
                ),
                ScoresSocket.Input(
                    "scores",
                    optional=True,
                    tooltip="Scores of the decoded images, in the order of the latents: from Score Images or any node "
                    "of Latent Critic. Connect either these or ratings.",
                ),
                io.Float.Input(
                    "ratings",
                    optional=True,
                    force_input=True,
                    tooltip="Your own ratings of the images from 0 (bad) to 100 (good), one per latent.",
                ),
            ],
            outputs=[
                HeadSocket.Output("head", "head", "The head, for Score From Probe; blocked until it is fitted."),
                io.Int.Output("collected", "collected", "How many images have been collected under this name."),
                io.String.Output("report", "report", "What was collected, and how well held-out images were told."),
            ],
        )

    @classmethod
    def execute(
        cls,
        latents: list[Any],
        probe: list[Any],
        name: list[str],
        fit_at: list[int],
        scores: list[Any] | None = None,
        ratings: list[Any] | None = None,
    ) -> io.NodeOutput:
        """Collect; fit when it is time."""
        found, count = latents_given(latents)
        seen, title = one(probe, "probe"), checked_name(one(name, "name"))
        if not isinstance(seen, Probe):
            raise BadInput("a probe (LC_PROBE)", type(seen).__name__, "Connect Probe Model.")
        target, values = _targets(scores, ratings, count)
        rows, reasons, place = [], [], 0
        for latent in found.dicts:
            samples = latent["samples"]
            got, known = rows_of(seen, samples, values[place : place + len(samples)], seen.session)
            rows += got
            reasons += [values for values in known.features if isinstance(values, str)]
            place += len(samples)
        store = RatedRuns(collection_file(title))
        total = store.add(told_of(seen, target), rows)
        head, fresh = _head(seen, target, store, title, total, one(fit_at, "fit_at"))
        text = _report(title, len(rows), count, total, one(fit_at, "fit_at"), head, fresh, reasons)
        return io.NodeOutput(head or ExecutionBlocker(None), total, text, ui={"text": [text]})


def checked_name(name: str) -> str:
    """A name that is one file name.

    Raises:
        BadInput: it is empty or leads elsewhere.
    """
    name = name.strip()
    if not name or name.startswith(".") or Path(name).name != name or "\\" in name or ":" in name:
        raise BadInput("a plain name for the head", repr(name), "Write for example: my probe")
    return name


def collection_file(name: str) -> Path:
    """Where a collection lies in ComfyUI's user folder."""
    return Path(folder_paths.get_user_directory(), "latent_critic", "finished_runs", f"{name}.sqlite")


def head_file(name: str) -> Path:
    """Where its head lies among ComfyUI's models."""
    folder_paths.add_model_folder_path(_HEADS, str(Path(folder_paths.models_dir, _HEADS)))
    return Path(folder_paths.models_dir, _HEADS, f"{name}.safetensors")


def _targets(scores: list[Any] | None, ratings: list[Any] | None, count: int) -> tuple[Target, list[float | None]]:
    batch = merged_scores(scores)
    if (batch is None) == (ratings is None):
        got = "neither" if batch is None else "both"
        raise BadInput("scores or ratings", got, "Connect the scores of the decoded images, or your ratings of them.")
    values: list[float | None] = list(ratings or ()) if batch is None else batch.values()
    if len(values) != count:
        raise BadInput(f"{count} scores or ratings, one per latent", str(len(values)), "Score these very images.")
    target = Target.ratings() if batch is None else Target.scores(batch.spec)
    return target, [None if value is None else _on_scale(value, target) for value in values]


def _on_scale(value: Any, target: Target) -> float:
    """Checked before it is kept: one wrong number in a collection would spoil every later fit."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    low, high = target.scale or (-math.inf, math.inf)
    if not math.isfinite(number) or not low <= number <= high:
        scale = f"from {low:g} to {high:g}" if target.scale else "that are finite"
        raise BadInput(f"numbers {scale} as {target.name}", repr(value), "Map yours to this; nothing was collected.")
    return number


def _head(
    probe: Probe, target: Target, store: RatedRuns, name: str, total: int, fit_at: int
) -> tuple[Head | None, bool]:
    """The head of this collection, and whether it was fitted just now."""
    if total < fit_at:
        return None, False
    path, before = head_file(name), None
    if path.exists():
        try:
            before = load_head(path)
        except UnreadableFile:
            before = None  # torn, or of an older format: a new one takes its place
    if before is not None and before.meta.kind != "probe":
        raise BadInput(
            "a name that no other head has", repr(name), f"Name it otherwise: {path.name} is no probe's head."
        )
    if (
        before is not None
        and _still_told(probe, before, target)
        and before.meta.pictures <= total < (before.meta.pictures * 1.1)
    ):
        return before, False
    head, _ = fit_probe_head(probe, target, store.read(), name)
    save_head(path, head)
    return head, True


def _still_told(probe: Probe, head: Head, target: Target) -> bool:
    """Whether a head fits this probe and target: its collection may have been deleted and begun on another model."""
    if head.meta.settings.get("target") != target.digest:
        return False
    try:
        ProbeScorer(probe, head)
    except LatentCriticError:
        return False
    return True


def _report(
    name: str, added: int, count: int, total: int, fit_at: int, head: Head | None, fresh: bool, reasons: list[str]
) -> str:
    lines = [f"{added} of {count} images added; {total} collected as {name!r}."]
    if reasons:
        lines.append(f"Not added: {reasons[0]}")
    if head is None:
        return "\n".join([*lines, f"A head is fitted at {fit_at}."])
    told = head.meta.validation
    lines.append(f"The head was fitted {'now' if fresh else 'before'}, to {told['fitted_to']} of {told['n']} images.")
    lines.append(
        f"On {told['held_out']}: SRCC {told['srcc']:.2f} (95 % interval {told['srcc_low']:.2f} to "
        f"{told['srcc_high']:.2f}), PLCC {told['plcc']:.2f}."
    )
    if head.meta.calibrated_on is None:
        lines.append("It estimates a scorer, not people: its scores rank images.")
    return "\n".join(lines)
