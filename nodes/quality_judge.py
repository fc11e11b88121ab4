"""Quality Judge (built in): the scorer that ships with the pack."""

from __future__ import annotations

from comfy_api.latest import io

from ..core.nets.view_policy import POLICIES
from ._judge import BUILT_IN, PlacedJudge, judge_choices, judge_file
from ._sockets import CATEGORY_SCORERS, ScorerSocket


class QualityJudge(io.ComfyNode):
    """The built-in judge, or one of the user's own training, as a scorer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticQualityJudge",
            display_name="Quality Judge (built in)",
            category=CATEGORY_SCORERS,
            description="A small network that ships with this pack: no checkpoint, no download, fast on a CPU. It was "
            "trained on people's ratings of photographs and gives 0 to 100. It sees sharpness, noise, exposure and "
            "artefacts; it does not see wrong hands or faces, nor whether the image fits the prompt.",
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=judge_choices(),
                    default=BUILT_IN,
                    optional=True,
                    tooltip="Which judge: the built-in one, or one of your own from the folder models/quality_judges, "
                    "written by latent-critic train judge.",
                ),
                io.Combo.Input(
                    "views",
                    options=list(POLICIES),
                    default="full",
                    optional=True,
                    tooltip="full: up to nine native-scale parts of each image and a reduced view of the whole. fast: "
                    "two parts and the whole; quicker, and it agrees with people a little less (the judge's card has "
                    "the figure).",
                ),
            ],
            outputs=[ScorerSocket.Output("scorer", "scorer", "The judge, for any scorer input.")],
        )

    @classmethod
    def fingerprint_inputs(cls, weights: str | None = BUILT_IN, views: str | None = "full") -> str:
        """Changes when the file is written again; a linked choice comes as ``None``."""
        if weights is None:
            return "linked"
        try:
            seen = judge_file(weights).stat()
        except OSError as error:
            return str(error)
        return f"{seen.st_mtime_ns} {seen.st_size} {views}"

    @classmethod
    def execute(cls, weights: str = BUILT_IN, views: str = "full") -> io.NodeOutput:
        """Load the weights."""
        return io.NodeOutput(PlacedJudge(judge_file(weights), views))
