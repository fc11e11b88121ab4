"""Load Embedded Model: the small diffusion model that ships with this pack."""

from __future__ import annotations

from comfy_api.latest import io

from ..core.hosts.comfyui import embedded
from ._sockets import CATEGORY_ADVANCED


class LoadEmbeddedModel(io.ComfyNode):
    """The embedded model as MODEL, CLIP and VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticLoadEmbedded",
            display_name="Load Embedded Model",
            category=CATEGORY_ADVANCED,
            description="A tiny latent diffusion model that ships with this pack, so that every scorer can be tried "
            "without a checkpoint. Its outputs fit the stock nodes. It has seen a few hundred free pictures and makes "
            "none worth keeping; for scores that mean something, use your own checkpoint.",
            inputs=[],
            outputs=[
                io.Model.Output("model", "model", "Its denoiser."),
                io.Clip.Output("clip", "clip", "Its text encoder."),
                io.Vae.Output("vae", "vae", "Its autoencoder: 8 channels, 8 times down."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Read the shipped files."""
        return io.NodeOutput(embedded.load_model(), embedded.load_clip(), embedded.load_vae())
