"""LGDM Scorer (PMG): the loaded model and a head that was fitted for it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.errors import BadInput
from ..core.heads.head import Head
from ..core.methods.lgdm import Lgdm, options_of
from ._heads import loaded_backbone, placed_psi
from ._loaded import RESIZE, for_large_images, large_images_input
from ._sockets import CATEGORY_SCORERS, HeadSocket, ScorerSocket


class LgdmScorer(io.ComfyNode):
    """MODEL, CLIP, VAE and LC_HEAD → scorer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticLGDM",
            display_name="LGDM Scorer (PMG)",
            category=CATEGORY_SCORERS,
            description="The model that you have already loaded judges the images through a head that was fitted for "
            "it: it walks a short path of low noise levels, guided by the image, and the head reads what the model "
            "computes on the way. Reimplemented after LGDM (Saini and others, 2025), not by its authors. It is as good "
            "as its head: fit one with Fit Head. Hands, faces and meaning are not checked.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The diffusion model that the head was fitted on; LoRAs are allowed, with a note."
                ),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                HeadSocket.Input("head", tooltip="A head from Load Head or Fit Head."),
                io.Boolean.Input(
                    "allow_other_model",
                    default=False,
                    tooltip="Use a head that was fitted on another checkpoint of the same family. Its scores then only "
                    "rank, and may rank badly.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Score only the masked region: one mask for all images, or one for each. It is resized to "
                    "its image. A region too small for the model gets a reason in place of a score.",
                ),
                large_images_input(),
            ],
            outputs=[ScorerSocket.Output("scorer", "scorer", "The scorer, for any scorer input.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        head: Any,
        allow_other_model: bool,
        mask: Any = None,
        large_images: str = RESIZE,
    ) -> io.NodeOutput:
        """Check the head against the model, and bind both."""
        if not isinstance(head, Head):
            raise BadInput("a head (LC_HEAD)", type(head).__name__, "Connect Load Head or Fit Head.")
        backbone = loaded_backbone(model, clip, vae)
        psi = placed_psi(options_of(head), backbone)
        scorer = Lgdm(backbone, head, psi, override=allow_other_model, masks=mask)
        return io.NodeOutput(for_large_images(scorer, large_images))
