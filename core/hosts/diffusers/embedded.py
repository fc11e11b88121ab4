"""The embedded model's files as a diffusers pipeline."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ...errors import BadInput
from ...files import write_text
from ...nets import critic_ldm

_PREFIX = "text_model."


def load_embedded(folder: Path = critic_ldm.SHIPPED) -> StableDiffusionPipeline:
    """The embedded model in fp32 on the CPU, ready for ``pipeline("a sharp photo", height=256, width=256)``.

    Raises:
        UnreadableFile: a file is missing or damaged.
        BadInput: weights that do not belong to the architecture that their configuration names.
    """
    vae = AutoencoderTiny.from_config(critic_ldm.read_config(folder, "vae"))
    unet = UNet2DConditionModel.from_config(critic_ldm.read_config(folder, "unet"))
    text = CLIPTextModel(CLIPTextConfig(**critic_ldm.read_config(folder, "text_encoder")))
    for part, module in (("vae", vae), ("unet", unet), ("text_encoder", text)):
        assert isinstance(module, nn.Module)
        fill(module, critic_ldm.read_weights(folder, part))
        module.eval().requires_grad_(False)
    schedule = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    return StableDiffusionPipeline(
        vae=vae,  # pyright: ignore[reportArgumentType]
        text_encoder=text,
        tokenizer=make_tokenizer(critic_ldm.read_merges(folder)),
        unet=unet,  # pyright: ignore[reportArgumentType]
        scheduler=DDIMScheduler.from_config(schedule),  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )


def fill(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load weights that carry the names of their files; transformers 5 has dropped the text encoder's prefix.

    Raises:
        BadInput: weights of another architecture.
    """
    own = {name for name in module.state_dict() if "position_ids" not in name}
    if not any(name.startswith(_PREFIX) for name in own):
        weights = {name.removeprefix(_PREFIX): tensor for name, tensor in weights.items()}
    if own != set(weights):
        raise BadInput(
            f"the {len(own)} weights of a {type(module).__name__}",
            f"others, such as {sorted(own ^ set(weights))[0]}",
            "Take all files from one training run.",
        )
    try:
        module.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        got = str(error).splitlines()[-1].strip()
        raise BadInput(
            f"weights of the sizes of this {type(module).__name__}", got, "Take all files from one training run."
        ) from error


def make_tokenizer(merges: list[str]) -> CLIPTokenizer:
    """SD 1's tokenizer: start and end token, padded with the end token to 77."""
    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder, "vocab.json"), json.dumps(critic_ldm.vocabulary(merges), ensure_ascii=False))
        write_text(Path(folder, "merges.txt"), "#version: 0.2\n" + "\n".join(merges) + "\n")
        return CLIPTokenizer.from_pretrained(folder, pad_token=critic_ldm.SPECIAL[1], model_max_length=77)
