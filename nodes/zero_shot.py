"""Zero-shot Scorer: the loaded model judges by pairs of opposite prompts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.errors import BadInput
from ..core.hosts.comfyui.backbone import ComfyBackbone
from ..core.methods.zero_shot import DEFAULT_PAIRS, ZeroShot, ZeroShotOptions
from ._loaded import EVERY_FAMILY, RESIZE, for_large_images, large_images_input, loaded_inputs, need_parts
from ._sockets import CATEGORY_SCORERS, ScorerSocket


class ZeroShotScorer(io.ComfyNode):
    """MODEL, CLIP and VAE → scorer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticZeroShot",
            display_name="Zero-shot Scorer",
            category=CATEGORY_SCORERS,
            description="The model that you have already loaded judges the images: does it explain them better with "
            "the first or with the second prompt of each pair? No training and no second copy of the model. The scores "
            "rank images; they have no absolute scale, so use top k or percentile, not a threshold.",
            inputs=[
                *loaded_inputs(EVERY_FAMILY),
                io.String.Input(
                    "pairs",
                    multiline=True,
                    default="\n".join(f"{good} | {bad}" for good, bad in DEFAULT_PAIRS),
                    tooltip="One pair of opposite prompts a line: good | bad.",
                ),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=4096,
                    step=64,
                    tooltip="Images are scored at the area of size × size pixels. 0 is the size that the model was "
                    "trained at. Less is faster, and further from what the model knows.",
                ),
                large_images_input(),
            ],
            outputs=[ScorerSocket.Output("scorer", "scorer", "The scorer, for any scorer input.")],
        )

    @classmethod
    def execute(
        cls, model: Any, clip: Any, vae: Any, pairs: str, size: int, large_images: str = RESIZE
    ) -> io.NodeOutput:
        """Bind the scorer to the model."""
        need_parts(model, clip, vae)
        backbone = ComfyBackbone(model, clip, vae)
        scorer = ZeroShot(backbone, parse_pairs(pairs), ZeroShotOptions(side=size or None))
        return io.NodeOutput(for_large_images(scorer, large_images))


def parse_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Lines of ``good | bad`` → pairs; empty lines are skipped.

    Raises:
        BadInput: a line without exactly two prompts, or no line at all.
    """
    found = []
    for line in text.splitlines():
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 2 or not all(parts):
            raise BadInput(
                "two prompts a line: good | bad", repr(line), "Write for example: sharp photo | blurry photo"
            )
        found.append((parts[0], parts[1]))
    if not found:
        raise BadInput("at least one pair of prompts", "none", "Write for example: sharp photo | blurry photo")
    return tuple(found)
