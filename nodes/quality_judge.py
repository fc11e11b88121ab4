"""Quality Judge (built in): the scorer that ships with the pack."""

from __future__ import annotations

from comfy_api.latest import io

from ._judge import builtin_judge
from ._sockets import CATEGORY_SCORERS, ScorerSocket


class QualityJudge(io.ComfyNode):
    """The built-in judge as a scorer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticQualityJudge",
            display_name="Quality Judge (built in)",
            category=CATEGORY_SCORERS,
            description="A small network that ships with this pack: no checkpoint, no download, fast on a CPU. It was "
            "trained on people's ratings of photographs and gives 0 to 100. It sees sharpness, noise, exposure and "
            "artefacts; it does not see wrong hands or faces, nor whether the image fits the prompt.",
            inputs=[],
            outputs=[ScorerSocket.Output("scorer", "scorer", "The judge, for any scorer input.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Load the shipped weights."""
        return io.NodeOutput(builtin_judge())
