"""DP-IQA Scorer: the up blocks' features of the loaded model, or of the published one, decoded to a score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..core.methods.dp_iqa import DpOptions
from ._dp_iqa import choices, file_of, make_scorer
from ._loaded import RESIZE, for_large_images, large_images_input
from ._sockets import CATEGORY_SCORERS, ScorerSocket
from ._stamps import stamp


class DpIqaScorer(io.ComfyNode):
    """A DP-IQA file, and a model where it needs one → scorer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        found = choices()
        return io.Schema(
            node_id="LatentCriticDPIQA",
            display_name="DP-IQA Scorer",
            category=CATEGORY_SCORERS,
            description="One forward of a diffusion model without noise, its features decoded to a score "
            "(reimplemented after DP-IQA 2024, not by its authors). Ours needs no file and no input: a head that "
            "ships, on the embedded model. With a head of your own training it reads the model that you have already "
            "loaded, which stays as it is. The authors' own files run too, for academic use only.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=found,
                    default=found[0],
                    tooltip="Ours: what ships, nothing to connect. From the folder models/quality_heads: a head of "
                    "latent-critic train dp-iqa for frozen mode, on the loaded model; the authors' teacher or student "
                    "(.pth), a model of its own, academic use only.",
                ),
                io.Boolean.Input(
                    "allow_another_model",
                    default=False,
                    tooltip="Use a head of another checkpoint of the same family. Its scores then only rank.",
                ),
                io.Model.Input(
                    "model", optional=True, tooltip="Frozen mode: the model that the head was trained for; U-Nets."
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Frozen mode: the checkpoint's text encoder. The authors' teacher: OpenAI's whole CLIP "
                    "ViT-L/14, with its text projection. The student needs none.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Frozen mode: the VAE of the same checkpoint."),
                large_images_input(),
            ],
            outputs=[
                ScorerSocket.Output("scorer", "scorer", "The scorer, for any scorer input."),
                io.String.Output("report", "report", "Which mode this is, what it was trained on, how well it did."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, **rest: Any) -> str:
        """Changes when the file is written again; a linked choice comes as ``None``."""
        return stamp(lambda: None if file is None else file_of(file))

    @classmethod
    def execute(
        cls,
        file: str,
        allow_another_model: bool,
        model: Any = None,
        clip: Any = None,
        vae: Any = None,
        large_images: str = RESIZE,
    ) -> io.NodeOutput:
        """Make the scorer that the file asks for."""
        kept = Path(folder_paths.get_user_directory()) / "latent_critic" / "texts"
        options = DpOptions(override=allow_another_model, text_folder=kept)
        scorer, report = make_scorer(file_of(file), model, clip, vae, options)
        return io.NodeOutput(for_large_images(scorer, large_images), report)
