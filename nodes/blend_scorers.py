"""Blend Scorers: several scorers as one."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.methods.blend import Blend
from ._sockets import CATEGORY_SCORERS, ScorerSocket

LETTERS = "abcd"


class BlendScorers(io.ComfyNode):
    """A weighted mean of scorers, each in units of its own spread."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        scorers = [
            ScorerSocket.Input(
                f"scorer_{letter}", optional=letter not in "ab", tooltip=f"Scorer {letter.upper()} of the blend."
            )
            for letter in LETTERS
        ]
        weights = [
            io.Float.Input(
                f"weight_{letter}",
                default=1.0,
                min=0.0,
                max=100.0,
                step=0.05,
                tooltip=f"How much scorer {letter.upper()} counts, relative to the others. 0 leaves it out.",
            )
            for letter in LETTERS
        ]
        return io.Schema(
            node_id="LatentCriticBlendScorers",
            display_name="Blend Scorers",
            category=CATEGORY_SCORERS,
            description="Two to four scorers as one. Each is brought to its own fixed centre and spread first, never "
            "the batch's, so an image's blended score does not depend on its neighbours. Scorers with one and the same "
            "0 to 100 scale give a blend on that scale; any other blend only ranks images.",
            inputs=[*scorers, *weights],
            outputs=[ScorerSocket.Output("scorer", "scorer", "The blend, for any scorer input.")],
        )

    @classmethod
    def execute(
        cls,
        scorer_a: Any,
        scorer_b: Any,
        weight_a: float,
        weight_b: float,
        weight_c: float,
        weight_d: float,
        scorer_c: Any = None,
        scorer_d: Any = None,
    ) -> io.NodeOutput:
        """Make the blend."""
        pairs = ((scorer_a, weight_a), (scorer_b, weight_b), (scorer_c, weight_c), (scorer_d, weight_d))
        used = [(scorer, weight) for scorer, weight in pairs if scorer is not None]
        return io.NodeOutput(Blend([scorer for scorer, _ in used], [weight for _, weight in used]))
