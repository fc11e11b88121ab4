"""DiffV2IQA Scorer: what restoration by diffusion changes in an image, read by two branches."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.methods.diff_v2_iqa import DiffOptions
from ._diff_v2 import NONE, choices, file_of, make_scorer
from ._restorers import restorer_choices, restorer_path
from ._sockets import CATEGORY_SCORERS, ScorerSocket
from ._stamps import stamp


class DiffV2IQAScorer(io.ComfyNode):
    """A head, a restorer or the loaded model → scorer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        found, restorers = choices(), restorer_choices()
        return io.Schema(
            node_id="LatentCriticDiffV2IQA",
            display_name="DiffV2IQA Scorer",
            category=CATEGORY_SCORERS,
            description="Restores each image by diffusion and judges it by what that changes (reimplemented after "
            "DiffV2IQA, Wang and others 2024, not by its authors). The restorer is a small network of its own, or the "
            "model that you have already loaded: whichever the head was trained with. Quality Heat Map shows its "
            "scores in place.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=found,
                    default=found[0],
                    tooltip="The trained head, from the folder models/quality_heads: a .safetensors of latent-critic "
                    "train diff-v2-iqa.",
                ),
                io.Combo.Input(
                    "restorer",
                    options=restorers,
                    default=restorers[0],
                    tooltip="The restorer, from the folder models/quality_restorers: the one that the head was trained "
                    "with. Not used by a head that restores with the loaded model.",
                ),
                io.Boolean.Input(
                    "allow_another_restorer",
                    default=False,
                    tooltip="Use a head that was trained with another restorer, or on another model. Its scores then "
                    "only rank, and may rank badly.",
                ),
                io.Combo.Input(
                    "heat_map",
                    options=["quality", "change"],
                    default="quality",
                    tooltip="What Quality Heat Map shows with this scorer: what each place adds to the score, or how "
                    "far restoration changed each place.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="For a head that restores with the loaded model: that model, of any family.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="Likewise: the text encoder of the same checkpoint."),
                io.Vae.Input("vae", optional=True, tooltip="Likewise: the VAE of the same checkpoint."),
            ],
            outputs=[
                ScorerSocket.Output("scorer", "scorer", "The scorer, for any scorer input."),
                io.String.Output("report", "report", "What the head reads, what it was trained on, how well it did."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, restorer: str | None = None, **rest: Any) -> str:
        """Changes when a file is written again; a linked choice comes as ``None``."""
        return stamp(
            lambda: None if file is None or file == NONE else file_of(file),
            lambda: None if restorer is None else restorer_path(restorer),
        )

    @classmethod
    def execute(
        cls,
        file: str,
        restorer: str,
        allow_another_restorer: bool,
        heat_map: Any,
        model: Any = None,
        clip: Any = None,
        vae: Any = None,
    ) -> io.NodeOutput:
        """Make the scorer that the head asks for."""
        options = DiffOptions(override=allow_another_restorer, heat_map=heat_map)
        return io.NodeOutput(*make_scorer(file_of(file), restorer_path(restorer), (model, clip, vae), options))
