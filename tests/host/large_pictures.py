"""Does a picture's size cost memory, where it is scored in tiles? Peaks of fresh processes, on a tiny real pipeline.

    python tests/host/large_pictures.py [--sides 1024 2048 4096 8192] [--tile 512] [--resize]

Each side is one process: it scores one picture of noise, float32, and tells the most memory that it ever held, with and
without the picture's own bytes. ``--resize`` scores the picture whole instead, brought to the tile's size.
"""

import argparse
import logging
import runpy
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve()
MIB = 2**20
logger = logging.getLogger("large_pictures")


def pipeline():
    """Stable Diffusion 1.x with two small levels and a narrow VAE, random weights; the shipped model's text encoder."""
    import diffusers
    import torch
    from latent_critic.core.hosts.diffusers.embedded import load_embedded
    from latent_critic.core.nets import critic_ldm

    shipped = load_embedded(critic_ldm.SHIPPED)
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2, attention_head_dim=4,
        cross_attention_dim=shipped.text_encoder.config.hidden_size,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        latent_channels=4, block_out_channels=(16,) * 4, layers_per_block=1, norm_num_groups=8, scaling_factor=0.18,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        mid_block_add_attention=False,
    )  # fmt: skip
    return diffusers.StableDiffusionPipeline(
        unet=unet.eval(), vae=vae.eval(), text_encoder=shipped.text_encoder, tokenizer=shipped.tokenizer,
        scheduler=diffusers.DDIMScheduler(beta_schedule="scaled_linear"), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def one(side, tile, resize):
    """Score one picture in this process: its tiles, the peak in bytes, the peak before, the picture's bytes."""
    library = runpy.run_path(str(HERE.parents[2] / ".ci" / "comfyui.py"))["declare_torchvision_ops"]()
    import torch
    from latent_critic.core.benchmark.speed_memory import peak_bytes
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.methods.tiled import Tiled
    from latent_critic.core.methods.zero_shot import ZeroShot, ZeroShotOptions

    torch.set_num_threads(1)
    options = ZeroShotOptions(side=tile, timesteps=(90,))
    scorer = ZeroShot(DiffusersBackbone(pipeline(), most_rows=1), [("a good photo", "a bad photo")], options)
    scorer = scorer if resize else Tiled(scorer)
    scorer.score([torch.rand(3, tile, tile)])
    before = peak_bytes()
    picture = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    (found,) = scorer.score([picture])
    assert found.reason is None, found.reason
    del library
    return found.attributes.get("tiles", 1), peak_bytes(), before, picture.numel() * picture.element_size()


def measured(side, tile, resize=False):
    """As :func:`one`, in a process of its own."""
    command = [sys.executable, str(HERE), "--one", str(side), "--tile", str(tile), *(["--resize"] if resize else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-2000:])
    return tuple(map(int, done.stdout.split()[-4:]))


def main():
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--resize", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        sys.stdout.write(" ".join(map(str, one(given.one, given.tile, given.resize))) + "\n")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for side in given.sides:
        tiles, peak, before, picture = measured(side, given.tile, given.resize)
        beyond = (peak - picture) / MIB
        logger.info(
            "%5d px: %4d tiles of %d px; peak %.0f MiB, %.0f without the picture's %.0f; before it %.0f",
            side, tiles, given.tile, peak / MIB, beyond, picture / MIB, before / MIB,
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
