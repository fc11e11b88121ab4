"""Keep Best of Session: the best pictures of a whole night, whatever the size of a batch."""

from __future__ import annotations

import time
from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ..core.errors import BadInput
from ..core.records import ScoreBatch
from ..core.selection.policy import Policy, Selection, numeral
from ..core.selection.session import BEST, Member, Outcome, Session
from ._common_inputs import companion_inputs, images_input, scoring_inputs, seeds_input
from ._companions import companions_at_door
from ._inputs import one
from ._saving import comfyui_texts
from ._scoring import scores_for
from ._session import pictures_of, read_saved, session_folder
from ._show import result_ui
from ._sockets import CATEGORY, ScoresSocket

#: The best pictures that the node shows and lists; the folder holds all.
SHOWN = 12


class KeepBestOfSession(io.ComfyNode):
    """Lets a run's images compete with those of all earlier runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticKeepBest",
            display_name="Keep Best of Session",
            category=CATEGORY,
            description="Keeps the best images of many queue runs, also after a restart: queue one image at a time all "
            "night. Every image is saved, the best in best/ and all others in rest/; one that is beaten later moves "
            "from best/ to rest/. Nothing is deleted or overwritten.",
            is_input_list=True,
            is_output_node=True,
            not_idempotent=True,
            inputs=[images_input(), *_rules(), *scoring_inputs(), *companion_inputs(), seeds_input()],
            outputs=_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> int:
        """Always another value: every queue run counts, and another server may have changed the session."""
        return time.monotonic_ns()

    @classmethod
    def execute(
        cls,
        images: list[Any],
        session: list[str],
        top_k: list[int],
        top_percent: list[float],
        scorer: list[Any] | None = None,
        scores: list[Any] | None = None,
        latents: list[Any] | None = None,
        masks: list[Any] | None = None,
        prompts: list[Any] | None = None,
        seeds: list[Any] | None = None,
    ) -> io.NodeOutput:
        """Score, let the images join the session, hand on those that are among its best."""
        together = companions_at_door(images, latents, masks, prompts)
        folder = session_folder(one(session, "session"))
        policy = _policy(one(top_k, "top_k"), one(top_percent, "top_percent"))
        batch, hint = scores_for(together.images, scorer, scores, together.prompts, seeds)
        joining = pictures_of(together.images, batch, comfyui_texts(cls.hidden))
        outcome = Session(folder, read_saved).add(batch.spec, joining, policy)
        selection = _selection(batch, outcome)
        # None: an image that is not among the best is no error, and the branch ends quietly.
        best, rest = (
            together.side(places, None) for places in (selection.kept_best_first, selection.rejected_best_first)
        )
        shown = _shown(batch, selection, outcome, hint, folder.name)
        return io.NodeOutput(
            best.images,
            rest.images,
            best.latents,
            rest.latents,
            best.masks,
            best.prompts,
            bool(selection.kept),
            [str(member.path) for member in outcome.best],
            len(outcome.best),
            outcome.seen,
            batch,
            shown["text"][0],
            ui=shown,
        )


def _rules() -> list[io.Input]:
    return [
        io.String.Input(
            "session",
            default="overnight",
            tooltip="The session's name: a folder inside ComfyUI's output folder. A new name starts a new session; the "
            "old one stays as it is.",
        ),
        io.Int.Input(
            "top_k", default=10, min=0, max=100_000, tooltip="Keep the best k of the session. 0 switches it off."
        ),
        io.Float.Input(
            "top_percent",
            default=0.0,
            min=0.0,
            max=100.0,
            step=1.0,
            tooltip="Keep the best share of the session, in per cent, at least one image. 0 switches it off. With both "
            "on, an image has to pass both.",
        ),
    ]


def _outputs() -> list[io.Output]:
    return [
        io.Image.Output("best", "best", "Images of this run that are among the session's best.", is_output_list=True),
        io.Image.Output("rest", "rest", "All other images of this run.", is_output_list=True),
        io.Latent.Output("best_latents", "best latents", "Latents of the first.", is_output_list=True),
        io.Latent.Output("rest_latents", "rest latents", "Latents of the others.", is_output_list=True),
        io.Mask.Output("best_masks", "best masks", "Masks of the first.", is_output_list=True),
        io.String.Output("best_prompts", "best prompts", "Prompts of the first.", is_output_list=True),
        io.Boolean.Output("any_best", "any best", "Whether an image of this run is among the session's best."),
        io.String.Output(
            "best_files", "best files", "The files in best/, of all runs, best first.", is_output_list=True
        ),
        io.Int.Output("best_count", "best count", "How many images are in best/."),
        io.Int.Output("seen_count", "seen count", "How many images the session has seen."),
        ScoresSocket.Output("run_scores", "scores", "The scores of this run's images, in the order of the batch."),
        io.String.Output("report", "report", "What became of this run's images, and the session's best, as text."),
    ]


def _policy(top_k: int, top_percent: float) -> Policy:
    """Widgets → policy.

    Raises:
        BadInput: both rules are off.
    """
    if not top_k and not top_percent:
        raise BadInput("top_k or top_percent", "0 for both", "Set one of them: with neither, nothing is chosen.")
    return Policy(top_k=top_k or None, percentile=100 - top_percent if top_percent else None)


def _selection(batch: ScoreBatch, outcome: Outcome) -> Selection:
    """What the session decided about this run's images."""
    places = range(len(batch))
    return Selection(
        kept=tuple(place for place in places if outcome.added[place].best),
        rejected=tuple(place for place in places if not outcome.added[place].best),
        why=tuple(f"{_lies_at(member)}: {member.why}" for member in outcome.added),
        ranking=tuple(batch.ranking()),
    )


def _shown(batch: ScoreBatch, selection: Selection, outcome: Outcome, hint: str, name: str) -> dict[str, Any]:
    """The node's ``ui``: the session's best pictures, its state, and this run's report."""
    shown = result_ui(batch, selection, hint)
    rest = f"{outcome.seen - len(outcome.best)} in rest/"
    lines = [f"Session {name}: {outcome.seen} images, {len(outcome.best)} in best/, {rest}."]
    if outcome.unscored:
        lines.append(f"{outcome.unscored} of them have no score and lie in rest/.")
    if outcome.repeated:
        lines.append(f"{outcome.repeated} of this run's images were there before and were not saved again.")
    lines += [f"{rank:>4}  {_value(member)}  {_lies_at(member)}" for rank, member in _ranked(outcome)]
    if len(outcome.best) > SHOWN:
        lines.append(f"   …  and {len(outcome.best) - SHOWN} more")
    shown["text"] = ["\n".join([*lines, "", "This run:", *shown["text"]])]
    return {**shown, "images": [_result(member) for _, member in _ranked(outcome)], "session": [_state(outcome)]}


def _ranked(outcome: Outcome) -> list[tuple[int, Member]]:
    return list(enumerate(outcome.best[:SHOWN], 1))


def _value(member: Member) -> str:
    return "–" if member.score.value is None else numeral(member.score.value)


def _lies_at(member: Member) -> str:
    return f"{member.path.parent.name}/{member.path.name}"


def _state(outcome: Outcome) -> dict[str, Any]:
    """For /history."""
    best = [
        {"file": _lies_at(member), "score": member.score.value, "seed": member.score.seed} for member in outcome.best
    ]
    return {"seen": outcome.seen, "unscored": outcome.unscored, "repeated": outcome.repeated, BEST: best}


def _result(member: Member) -> ui.SavedResult:
    folder = member.path.parent.relative_to(folder_paths.get_output_directory())
    return ui.SavedResult(member.path.name, str(folder), io.FolderType.output)
