"""Inputs and outputs that both forms of Best Of N share."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.selection.abort import ABORT_MODES, EarlyAbort
from ..core.selection.looks import Looks, parse_counts, parse_numbers
from ..core.selection.race import RacePolicy
from ..core.selection.seeds import MOST, Seeds, parse_seeds
from ._best_of import BestOf
from ._seed_inputs import seed_order_inputs
from ._sockets import CATEGORY_MAKING, ScorerSocket, ScoresSocket

#: Candidates of one run.
MOST_SEEDS = 1024
_SEES = (
    "The built-in judge sees sharpness, noise, exposure and artefacts; it does not see wrong hands or faces, nor "
    "whether the image fits the prompt."
)


def race_schema(
    node_id: str, name: str, description: str, models: list[io.Input], sampling: list[io.Input]
) -> io.Schema:
    """The schema of one form: what samples, and KSampler's widgets where the form has them."""
    return io.Schema(
        node_id=node_id,
        display_name=name,
        category=CATEGORY_MAKING,
        description=f"{description} {_SEES}",
        is_output_node=True,
        inputs=[*models, *_start_inputs(), _seed_input(), *sampling, *_race_inputs()],
        outputs=_outputs(),
    )


def _start_inputs() -> list[io.Input]:
    """What every candidate starts from, and who decodes and judges it."""
    return [
        io.Latent.Input(
            "latent_image",
            tooltip="The latent to start from: an empty one, or an encoded image with a shorter schedule. Each image "
            "of a batch is sampled with every seed.",
        ),
        io.Vae.Input("vae", tooltip="The VAE that decodes what is looked at and what is finished."),
        ScorerSocket.Input(
            "scorer",
            optional=True,
            tooltip="The scorer that judges previews and finished images. Without one, the built-in judge is used.",
        ),
    ]


def _seed_input() -> io.Input:
    """The first seed."""
    return io.Int.Input(
        "seed", default=0, min=0, max=MOST, control_after_generate=True, tooltip="The first of the seeds."
    )


def _race_inputs() -> list[io.Input]:
    """How many candidates there are, and who goes on."""
    return [
        io.Int.Input("n", default=16, min=1, max=MOST_SEEDS, tooltip="How many seeds are started."),
        *seed_order_inputs(),
        io.String.Input(
            "looks",
            default="0.1, 0.2",
            tooltip="At which fractions of the steps the candidates are looked at and scored, apart by commas. Empty: "
            "no look, every candidate is finished.",
        ),
        io.String.Input(
            "shares",
            default="0.3, 0.4",
            tooltip="Which share of the running candidates goes on after each look, apart by commas. One number counts "
            "for every look: 0.5 is successive halving.",
        ),
        io.Combo.Input(
            "early_abort",
            options=list(ABORT_MODES),
            default="off",
            tooltip="Drops a candidate at a look also when it is below abort_quantile of this batch, or of what "
            "earlier runs of this scorer, model and sampler saw at that same step (from 20 previews on; they are "
            "remembered while this is chosen).",
        ),
        io.Float.Input(
            "abort_quantile",
            default=0.25,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Early abort drops what is worse than this part of the others. 0.25: the worst quarter.",
        ),
        io.Int.Input(
            "finish_at_least",
            default=1,
            min=0,
            max=MOST_SEEDS,
            tooltip="At least so many are finished. 0 lets an early abort end everybody: then nothing comes out.",
        ),
        io.Int.Input(
            "rows_at_once",
            default=0,
            min=0,
            max=MOST_SEEDS,
            tooltip="At most so many images go through the model together; 0: as many as fit. At 1 the winner is to "
            "the last bit what a KSampler gives for its seed alone.",
        ),
        io.String.Input(
            "preview_steps",
            default="1, 2",
            optional=True,  # prompts from before this widget stay valid
            tooltip="What each look sees, apart by commas; the last number counts for all further looks. 0: the image "
            "that the model predicts at that step, blurred while it is early. 1 or more: each candidate is tried out "
            "to the end in so many extra steps, which is sharper and ranks better. They cost denoiser calls, and "
            "change nothing in what is finished.",
        ),
    ]


def _outputs() -> list[io.Output]:
    """The winner, then everything that was finished, then the log."""
    return [
        io.Image.Output("image", "image", "The best image."),
        io.Latent.Output("latent", "latent", "Its latent, for an upscale or a second pass."),
        io.Float.Output("score", "score", "Its score."),
        io.Int.Output("seed_used", "seed", "Its seed: the same sampler alone makes it again with this seed."),
        io.Latent.Output("noise", "noise", "The noise that its sampling began with, for samplers that take noise."),
        io.Boolean.Output("passed", "passed", "Whether an image was finished and has a score."),
        io.Int.Output("finished", "finished", "How many candidates were finished."),
        ScoresSocket.Output("scores", "scores", "The scores of the finished candidates, in the order of candidates."),
        io.Image.Output("candidates", "candidates", "All finished images, in the order of seeds.", is_output_list=True),
        io.String.Output(
            "log", "log", "Every look and every candidate: scores on the way, who was dropped when and why."
        ),
        io.String.Output("log_json", "log json", "The same log as JSON."),
    ]


def seeds_of(widgets: dict[str, Any]) -> list[int]:
    """The seeds that the widgets ask for.

    Raises:
        BadInput: an empty list, or something in it that is no seed.
    """
    listed = parse_seeds(widgets["seed_list"]) if widgets["seed_mode"] == "list" else ()
    return Seeds(widgets["seed"], widgets["seed_mode"], listed).first(widgets["n"])


def told_of(widgets: dict[str, Any], vae: Any, scorer: Any, sampler: str) -> BestOf:
    """What the widgets ask for: when to look, who goes on.

    Raises:
        BadInput: fractions, shares or a quantile that make no sense.
    """
    fractions = parse_numbers(widgets["looks"], "looks")
    shares = parse_numbers(widgets["shares"], "shares") or (1.0,)
    ahead = parse_counts(widgets.get("preview_steps", ""), "preview_steps") or (0,)
    looks = Looks(fractions, shares, ahead) if fractions else Looks((), (), ahead)
    policy = RacePolicy(EarlyAbort(widgets["early_abort"], widgets["abort_quantile"]), widgets["finish_at_least"])
    return BestOf(vae, scorer, looks, policy, sampler, _notes_of(widgets))


def _notes_of(widgets: dict[str, Any]) -> tuple[str, ...]:
    """What the log says of the seeds: whether some of a list are left out."""
    listed = dict.fromkeys(parse_seeds(widgets["seed_list"])) if widgets["seed_mode"] == "list" else ()
    if len(listed) <= widgets["n"]:
        return ()
    return (f"{widgets['n']} of {len(listed)} listed seeds are used, because n is {widgets['n']}.",)
