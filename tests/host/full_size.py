"""A scorer once on a model of SD 1.5's full size, in ComfyUI's own executor: calls, weights, time and memory.

Not a test, since it takes minutes and up to 7 GB: run it by hand as CONTRIBUTING.md says, with a ComfyUI folder and
``lgdm``, or ``dp_iqa`` or ``dp_iqa_student`` for a random file of the authors' layout.
"""

import hashlib
import importlib
import logging
import runpy
import sys
import tempfile
import time
from pathlib import Path

import in_process
import torch

ROOT = Path(__file__).resolve().parents[2]
SIDE = 256
UNET = {
    "use_checkpoint": False, "image_size": 32, "use_spatial_transformer": True, "legacy": False,
    "adm_in_channels": None, "in_channels": 4, "out_channels": 4, "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1, "num_heads": 8,
    "num_head_channels": -1, "use_linear_in_transformer": False, "context_dim": 768, "use_temporal_resblock": False,
    "use_temporal_attention": False,
}  # fmt: skip
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
logger = logging.getLogger("full_size")


def full_size():
    """MODEL, CLIP and VAE with random weights in fp32."""
    import comfy.ldm.models.autoencoder
    import comfy.sd
    import comfy.sd1_clip
    import comfy.supported_models
    import comfy.supported_models_base
    import tiny_models

    config = comfy.supported_models.SD15(dict(UNET))
    config.set_inference_dtype(torch.float32, None)
    model = tiny_models.patcher(config.get_model({}, "", device="cpu"), 0)
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})
    tiny_models.fill(clip.cond_stage_model, 1)
    params = {"ddconfig": dict(VAE), "embed_dim": 4}
    network = tiny_models.fill(comfy.ldm.models.autoencoder.AutoencoderKL(**params), 2)
    vae = comfy.sd.VAE(sd=network.state_dict(), config={"params": params}, dtype=torch.float32)
    return model, clip, vae


def digest(model, vae, clip=None):
    """Of every weight, bit by bit."""
    found = hashlib.sha256()
    for module in (model.model, vae.first_stage_model, *([] if clip is None else [clip.cond_stage_model])):
        for name, value in sorted(module.state_dict().items()):
            found.update(name.encode())
            found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def count(model, vae):
    """What runs from now on, counted at the modules."""
    found = {"denoiser": 0, "encoder": 0, "decoder": 0, "decoder backward": 0}

    def went_back(_):
        found["decoder backward"] += 1

    def note(name):
        def forward(module, args, out):
            found[name] += 1
            if out.requires_grad:
                out.register_hook(went_back)

        return forward

    model.model.diffusion_model.register_forward_hook(note("denoiser"))
    vae.first_stage_model.encoder.register_forward_hook(note("encoder"))
    vae.first_stage_model.decoder.register_forward_hook(note("decoder"))
    return found


def holder(values, types):
    """A node that gives values that exist already."""

    class Held:
        RETURN_TYPES, FUNCTION, CATEGORY = types, "give", "tests"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {}}

        def give(self):
            return values

    return Held


def run_lgdm(nodes, pack):
    """One graph: the parts → LGDM Scorer → Score Images."""
    lgdm, perceptual = pack("core.benchmark.speed_lgdm"), pack("core.perceptual.judge")
    model, clip, vae = parts = full_size()
    backbone = pack("core.hosts.comfyui.backbone").ComfyBackbone(*parts)
    head = lgdm.random_head(lgdm.features_of(backbone, perceptual.JudgePsi.load(), SIDE))
    nodes.NODE_CLASS_MAPPINGS.update(
        Parts=holder(parts, ("MODEL", "CLIP", "VAE")), Head=holder((head,), ("LC_HEAD",)), Image=picture()
    )
    wires = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "head": ["2", 0], "allow_other_model": False}
    prompt = {
        "1": {"class_type": "Parts", "inputs": {}},
        "2": {"class_type": "Head", "inputs": {}},
        "3": {"class_type": "Image", "inputs": {}},
        "4": {"class_type": "LatentCriticLGDM", "inputs": wires},
        "5": {"class_type": "LatentCriticScoreImages", "inputs": {"images": ["3", 0], "scorer": ["4", 0]}},
    }
    seen = Seen()
    seen(model, vae, clip)
    report(prompt, pack, seen)


def run_dp_iqa(nodes, pack, base, student=False):
    """One graph: a file of the authors' layout → DP-IQA Scorer → Score Images; a teacher's U-Net in bf16."""
    import comfy.cli_args
    import full_size_dp_iqa as theirs

    comfy.cli_args.args.bf16_unet = True
    folder = Path(base, "models/quality_heads")
    folder.mkdir(parents=True)
    write = theirs.write_student if student else theirs.write_teacher
    logger.info("parameters of the file: %.0f M", write(folder / theirs.NAME, pack) / 1e6)
    nodes.NODE_CLASS_MAPPINGS.update(Image=picture())
    seen = None
    if not student:
        nodes.NODE_CLASS_MAPPINGS.update(Clip=holder((theirs.small_clip(),), ("CLIP",)))
        seen = Seen()
        theirs.watch_parts(pack, SIDE, seen)
    report(theirs.prompt(not student), pack, seen)


def picture():
    """A node with one random image."""
    return holder((torch.rand(1, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0)),), ("IMAGE",))


class Seen:
    """The loaded parts, their digest before anything runs, and the calls from then on."""

    def __call__(self, model, vae, clip=None):
        self.parts = model, vae, clip
        self.before, self.calls = digest(*self.parts), count(model, vae)


def report(prompt, pack, seen):
    """Run a graph and tell what it took; ``seen`` is ``None`` where no diffusion model is used."""
    start = time.monotonic()
    done = in_process.Executor()(prompt)
    seconds = time.monotonic() - start
    if not done.success:
        raise RuntimeError(done.error)
    row = done.outputs["5"]["scores"][0]
    logger.info("image %d×%d: score %s, reason %s", SIDE, SIDE, row["score"], row["reason"])
    if seen is not None:
        parts = seen.parts[0].model, seen.parts[1].first_stage_model
        logger.info("parameters: U-Net %.0f M, VAE %.0f M", *(_millions(part) for part in parts))
        logger.info("calls: %s", ", ".join(f"{name} {number}" for name, number in seen.calls.items()))
        logger.info("weights bit-identical: %s", digest(*seen.parts) == seen.before)
    logger.info("%.0f s with %d threads", seconds, torch.get_num_threads())
    logger.info("peak memory of the process: %.2f GB", pack("core.benchmark.speed_memory").peak_bytes() / 1e9)


def _millions(network):
    return sum(value.numel() for value in network.parameters()) / 1e6


def main(folder, scorer="lgdm"):
    """Import that ComfyUI, load the pack, run."""
    library = runpy.run_path(str(ROOT / ".ci" / "comfyui.py"))["declare_torchvision_ops"]()
    with tempfile.TemporaryDirectory() as base:
        for name in ("input", "output", "temp", "models/checkpoints", "custom_nodes", "user"):
            Path(base, name).mkdir(parents=True)
        nodes = in_process.import_comfyui(folder, base)
        root = in_process.load_pack(nodes, ROOT)
        logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
        import tiny_nodes

        nodes.NODE_CLASS_MAPPINGS.update(tiny_nodes.NODE_CLASS_MAPPINGS)  # the executor asks for TestKeep

        def pack(name):
            return importlib.import_module(f"{root.__name__}.{name}")

        if scorer.startswith("dp_iqa"):
            run_dp_iqa(nodes, pack, base, student=scorer == "dp_iqa_student")
        else:
            run_lgdm(nodes, pack)
    del library


if __name__ == "__main__":
    main(*sys.argv[1:])
