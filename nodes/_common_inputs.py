"""Inputs that several nodes share, declared once so that they read the same everywhere."""

from __future__ import annotations

from comfy_api.latest import io

from ._sockets import ScorerSocket, ScoresSocket


def images_input() -> io.Input:
    """The images of a node: a batch or a list."""
    return io.Image.Input("images", tooltip="The images: a batch, or a list of images of any sizes.")


def companion_inputs() -> list[io.Input]:
    """What is filtered together with the images."""
    return [
        io.Latent.Input(
            "latents",
            optional=True,
            tooltip="The latents that the images were decoded from, one per image. They come out filtered the same "
            "way, with batch_index and noise_mask.",
        ),
        io.Mask.Input(
            "masks", optional=True, tooltip="Masks, one per image or one for all. They come out filtered the same way."
        ),
        prompts_input(),
    ]


def prompts_input() -> io.Input:
    """Texts that belong to the images."""
    return io.String.Input(
        "prompts",
        optional=True,
        force_input=True,
        tooltip="The prompts of the images, a list with one text per image or one text for all. Scorers that read "
        "prompts get them; the others ignore them.",
    )


def scoring_inputs() -> list[io.Input]:
    """Where the scores come from."""
    return [
        ScorerSocket.Input(
            "scorer",
            optional=True,
            tooltip="The scorer to use. Without a scorer and without scores, the built-in judge is used.",
        ),
        ScoresSocket.Input(
            "scores",
            optional=True,
            tooltip="Scores that these images already have, from Score Images. Connect either these or a scorer.",
        ),
    ]


def seeds_input() -> io.Input:
    """Seeds, for the report and the file's text."""
    return io.Int.Input(
        "seeds",
        optional=True,
        force_input=True,
        tooltip="The seeds that the images were sampled with, one per image or one for all. Written into the report.",
    )
