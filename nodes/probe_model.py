"""Probe Model: features of the forwards that sampling makes anyway."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.errors import BadInput
from ..core.hosts.comfyui.probe import probe_model
from ._loaded import EVERY_FAMILY
from ._sockets import CATEGORY_ADVANCED, ProbeSocket

DEFAULT_TIMESTEPS = "300, 150, 50"


class ProbeModel(io.ComfyNode):
    """MODEL → MODEL + LC_PROBE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticProbeModel",
            display_name="Probe Model",
            category=CATEGORY_ADVANCED,
            description="Put it between the model and the sampler: it reads small features out of the forwards that "
            "sampling makes anyway, without one call more and without changing a bit of the result. Score From Probe "
            "turns them into scores of the finished latents, before anything is decoded.",
            inputs=[
                io.Model.Input("model", tooltip=f"The model to sample with: {EVERY_FAMILY}."),
                io.String.Input(
                    "timesteps",
                    default=DEFAULT_TIMESTEPS,
                    tooltip="The noise levels to read, as numbers from 999 (noise) to 0 (clean). The sampling step "
                    "nearest to each is taken. A head fits only the levels that it was fitted for.",
                ),
                io.String.Input(
                    "taps",
                    default="",
                    tooltip="Names of the blocks to read, such as: mid, up.5. Empty reads all. Fewer keep files small.",
                ),
                io.Int.Input(
                    "memory_mib",
                    default=256,
                    min=1,
                    max=65536,
                    tooltip="Memory for the features of past samplings, in MiB. The oldest are dropped beyond it.",
                ),
            ],
            outputs=[
                io.Model.Output("probed_model", "probed model", "The same model, for the sampler."),
                ProbeSocket.Output("probe", "probe", "What it has recorded, for Score From Probe."),
            ],
        )

    @classmethod
    def execute(cls, model: Any, timesteps: str, taps: str, memory_mib: int) -> io.NodeOutput:
        """Hang the probe on a clone."""
        names = [name.strip() for name in taps.replace("\n", ",").split(",") if name.strip()]
        return io.NodeOutput(*probe_model(model, parse_timesteps(timesteps), names, most_bytes=memory_mib * 2**20))


def parse_timesteps(text: str) -> list[int]:
    """``"300, 150"`` → [300, 150].

    Raises:
        BadInput: something that is no whole number.
    """
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise BadInput(
            "timesteps such as 300, 150, 50", repr(text), f"Write for example: {DEFAULT_TIMESTEPS}"
        ) from error
