"""Prompt Alignment: how much an image answers to each word of its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import stdev
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..core.hosts.comfyui.backbone import ComfyBackbone
from ..core.methods.alignment import Aligned, AlignmentOptions, PromptAlignment, scored
from ..core.methods.alignment_picture import longest_side, word_pictures
from ..core.methods.alignment_spread import Spread
from ..core.records import Score, ScoreBatch
from ..core.selection.filtering import one_per_image
from ._common_inputs import prompts_input
from ._inputs import images_at_door, one, texts_at_door
from ._loaded import EVERY_FAMILY, loaded_inputs, need_parts
from ._scoring import watch_in_comfyui
from ._sockets import CATEGORY_ADVANCED, ScorerSocket, ScoresSocket

_NO_IMAGES = "Prompt Alignment has no images: connect some to its images input, or use its scorer output only."


class PromptAlignmentNode(io.ComfyNode):
    """Words of a prompt against images, as numbers, maps and a scorer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticPromptAlignment",
            display_name="Prompt Alignment",
            category=CATEGORY_ADVANCED,
            description="How much an image answers to each word of its prompt in the cross-attention of the model that "
            "you have already loaded, beside what the model does with that word when it is shown nothing. 0: no more "
            "than nothing would. The numbers rank images of one prompt; they have no absolute scale.",
            is_input_list=True,
            inputs=[
                *loaded_inputs(EVERY_FAMILY),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    tooltip="The prompt of all images; what is connected to prompts goes before it.",
                ),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=4096,
                    step=64,
                    tooltip="Images are read at the area of size × size pixels. 0 is the size that the model was "
                    "trained at. Less is faster, and further from what the model knows.",
                ),
                io.Float.Input(
                    "spread",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.001,
                    optional=True,
                    tooltip="What Blend Scorers divides the numbers by. 0: the spread measured on the embedded model, "
                    "and 0.1 on others, a convention. The report says how far these images' own numbers lie apart: "
                    "give about that, so that the blend weighs alignment as its weight says.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="The images: a batch, or a list of images of any sizes. Without any, only the scorer comes "
                    "out.",
                ),
                prompts_input(),
            ],
            outputs=[
                ScorerSocket.Output("scorer", "scorer", "Alignment with the prompt as a scorer, for Blend Scorers."),
                ScoresSocket.Output("scores", "scores", "Each image's mean over the words of its prompt."),
                io.Image.Output(
                    "maps",
                    "maps",
                    "A map over the picture for each image and word in order: bright where it answers to the word. "
                    "The longer side is at most 512 px, less where there are hundreds of maps.",
                    is_output_list=True,
                ),
                io.String.Output(
                    "labels", "labels", "Image, word and number of each map, in the same order.", is_output_list=True
                ),
                io.String.Output("report", "report", "Every image's words and their numbers, as text."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: list[Any],
        clip: list[Any],
        vae: list[Any],
        prompt: list[str],
        size: list[int],
        images: list[Any] | None = None,
        prompts: list[Any] | None = None,
        spread: list[float] | None = None,
    ) -> io.NodeOutput:
        """Align, or only bind the scorer."""
        parts = (one(model, "model"), one(clip, "clip"), one(vae, "vae"))
        need_parts(*parts)
        text = one(prompt, "prompt", "")
        options = AlignmentOptions(side=one(size, "size", 0) or None, spread=one(spread, "spread", 0.0) or None)
        scorer = PromptAlignment(ComfyBackbone(*parts), options, prompt=text)
        if images is None:
            nothing = ExecutionBlocker(_NO_IMAGES)
            return io.NodeOutput(scorer, nothing, [nothing], [nothing], nothing)
        stack = images_at_door(images)
        texts = texts_at_door(prompts, len(stack))
        texts = [text] * len(stack) if texts is None else list(one_per_image(texts, len(stack), "prompts"))
        pictures = stack.channels_first()
        found = scorer.align(pictures, texts, watch=watch_in_comfyui(len(stack)))
        batch = ScoreBatch(scorer.spec, tuple(scored(*pair) for pair in enumerate(found)))
        maps, labels = _maps(pictures, found)
        report = _report(found, scorer.spread)
        return io.NodeOutput(scorer, batch, maps, labels, report, ui={"text": [report], "scores": _rows(batch)})


def _maps(pictures: Sequence[Any], found: Sequence[Aligned | Score]) -> tuple[list[Any], list[Any]]:
    """Maps and labels of all images that have any; blocked with the first reason where none has."""
    maps: list[Any] = []
    labels: list[Any] = []
    longest = longest_side(sum(len(aligned.maps) for aligned in found if isinstance(aligned, Aligned)))
    for place, (picture, aligned) in enumerate(zip(pictures, found, strict=True)):
        if isinstance(aligned, Aligned):
            maps += [shown.movedim(0, -1)[None] for shown in word_pictures(picture[:3], aligned.maps, longest=longest)]
            labels += [f"{place} {word} {value:.3f}" for word, value in zip(aligned.words, aligned.values, strict=True)]
    if maps:
        return maps, labels
    reason = next(aligned.reason for aligned in found if isinstance(aligned, Score))
    blocked = ExecutionBlocker(f"No image could be aligned with its prompt. The first one: {reason}")
    return [blocked], [blocked]


def _report(found: Sequence[Aligned | Score], spread: Spread) -> str:
    lines = []
    for place, aligned in enumerate(found):
        if isinstance(aligned, Score):
            lines.append(f"{place}: no number: {aligned.reason}")
            continue
        words = ", ".join(f"{word} {value:+.3f}" for word, value in zip(aligned.words, aligned.values, strict=True))
        lines.append(f"{place}: {aligned.value:+.3f} ({words})")
    lines.append(f"Spread for blends: {spread.value:.3g}, {spread.source}.")
    values = [aligned.value for aligned in found if isinstance(aligned, Aligned)]
    if len(values) > 1:
        lines.append(f"Standard deviation of these images' numbers: {stdev(values):.3g}")
    return "\n".join(lines)


def _rows(batch: ScoreBatch) -> list[dict[str, Any]]:
    return [
        {"index": score.index, "score": score.value, "reason": score.reason, "words": score.attributes.get("words", [])}
        for score in batch
    ]
