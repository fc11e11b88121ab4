"""Inputs and outputs that both forms of Best Of N share."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.selection.abort import ABORT_MODES, EarlyAbort
from ..core.selection.looks import Looks, parse_numbers
from ..core.selection.race import RacePolicy
from ..core.selection.seeds import MOST, SEED_MODES, Seeds, parse_seeds
from ._sockets import ScorerSocket, ScoresSocket

#: Candidates of one run.
MOST_SEEDS = 1024
SEES = (
    "The built-in judge sees sharpness, noise, exposure and artefacts; it does not see wrong hands or faces, nor "
    "whether the image fits the prompt."
)


def start_inputs() -> list[io.Input]:
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


def seed_input() -> io.Input:
    """The first seed."""
    return io.Int.Input(
        "seed", default=0, min=0, max=MOST, control_after_generate=True, tooltip="The first of the seeds."
    )


def race_inputs() -> list[io.Input]:
    """How many candidates there are, and who goes on."""
    return [
        io.Int.Input("n", default=16, min=1, max=MOST_SEEDS, tooltip="How many seeds are started."),
        io.Combo.Input(
            "seed_mode",
            options=list(SEED_MODES),
            default="increment",
            tooltip="increment: seed, seed + 1, … random: seed, then numbers that it alone decides. list: those of "
            "seed_list.",
        ),
        io.String.Input("seed_list", default="", tooltip="Seeds for the mode list, apart by commas: 7, 11, 42."),
        io.String.Input(
            "looks",
            default="0.2, 0.6",
            tooltip="At which fractions of the steps the predicted clean images are scored, apart by commas. Empty: no "
            "look, every candidate is finished.",
        ),
        io.String.Input(
            "shares",
            default="0.3, 0.6",
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
    ]


def outputs() -> list[io.Output]:
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


def notes_of(widgets: dict[str, Any]) -> tuple[str, ...]:
    """What the log says of the seeds: whether some of a list are left out."""
    listed = dict.fromkeys(parse_seeds(widgets["seed_list"])) if widgets["seed_mode"] == "list" else ()
    if len(listed) <= widgets["n"]:
        return ()
    return (f"{widgets['n']} of {len(listed)} listed seeds are used, because n is {widgets['n']}.",)


def rules_of(widgets: dict[str, Any]) -> tuple[Looks, RacePolicy]:
    """When to look and who goes on.

    Raises:
        BadInput: fractions, shares or a quantile that make no sense.
    """
    fractions = parse_numbers(widgets["looks"], "looks")
    looks = Looks(fractions, parse_numbers(widgets["shares"], "shares") or (1.0,)) if fractions else Looks((), ())
    return looks, RacePolicy(EarlyAbort(widgets["early_abort"], widgets["abort_quantile"]), widgets["finish_at_least"])
