"""Flux from a GGUF file by ComfyUI-GGUF's own loader: scores, gradients, fingerprint, LoRA, against plain weights.

Not a test, because that pack is nobody's dependency here: clone it, `pip install gguf`, and run by hand

    python tests/host/real_gguf.py COMFYUI_FOLDER COMFYUI_GGUF_FOLDER [--kinds Q8_0,Q5_1,Q4_0]

The file is a tiny Flux, written by the package gguf. ComfyUI takes every Flux for one of 24 heads; here it is told how
many there are.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import logging
import runpy
import sys
import tempfile
from pathlib import Path

import gguf
import in_process
import torch
from on_a_gpu import helpers

HERE = Path(__file__).resolve().parent
logger = logging.getLogger("real_gguf")


def written(model, path, kind):
    """Write a MODEL's network to a GGUF file, as ComfyUI-GGUF's converter does; the weights that it holds then."""
    writer, held = gguf.GGUFWriter(str(path), arch="flux"), {}
    for name, value in model.model.diffusion_model.state_dict().items():
        array = value.float().numpy()
        if array.ndim < 2 or array.shape[-1] % 32:
            writer.add_tensor(name, array)
            held[name] = value.float()
            continue
        data = gguf.quants.quantize(array, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        held[name] = torch.from_numpy(gguf.quants.dequantize(data, kind).reshape(array.shape).copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def loader(folder):
    """ComfyUI-GGUF's module of nodes."""
    spec = importlib.util.spec_from_file_location(
        "comfyui_gguf", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["comfyui_gguf"] = module
    spec.loader.exec_module(module)
    return importlib.import_module("comfyui_gguf.nodes")


def told_its_sizes(config):
    """ComfyUI's detection, with this network's heads and axes in place of Flux's."""
    detection = importlib.import_module("comfy.model_detection")
    own = detection.detect_unet_config

    def detect(*args, **named):
        found = own(*args, **named)
        return found | {name: config[name] for name in ("num_heads", "axes_dim")}

    detection.detect_unet_config = detect


def scores(pack, model, tiny):
    """zero_shot's values, and lgdm's features along a path with gradients through the denoiser."""
    zero_shot, guidance = pack("core.methods.zero_shot"), pack("core.guidance.options")
    features, options = pack("core.methods.hyperfeatures"), pack("core.methods.hyperfeature_options")
    backbone = pack("core.hosts.comfyui.backbone").ComfyBackbone(model, tiny.clip("flux"), tiny.vae(0, family="flux"))
    pictures = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    found = zero_shot.ZeroShot(backbone, options=zero_shot.ZeroShotOptions(side=64, timesteps=(90,))).score(pictures)
    path = guidance.GuidanceOptions(timesteps=(90, 30), zeta1=0.02, zeta2=0.0, through="denoiser")
    how = options.HyperfeatureOptions(kind="guided_path", guidance=path, side=64, most_crops=1)
    read = features.Hyperfeatures(backbone, how).extract(pictures)
    assert [one.reason for one in (*found, *read)] == [None] * 4, [one.reason for one in (*found, *read)]
    return backbone, torch.tensor(found.values()), torch.stack([one.features for one in read])


def compare(pack, tiny, nodes, base, kind):
    """One kind of blocks; whether all agrees."""
    plain = tiny.model("flux")
    file = base / "models" / "unet" / f"tiny-{kind.name}.gguf"
    file.parent.mkdir(parents=True, exist_ok=True)
    held = written(plain, file, kind)
    rounded = tiny.model("flux")
    rounded.model.diffusion_model.load_state_dict(held)
    (model,) = nodes.UnetLoaderGGUF().load_unet(file.name)
    blocks = sum(getattr(weight, "tensor_type", None) == kind for weight in model.model.parameters())
    backbone, values, read = scores(pack, model, tiny)
    _, expected, like = scores(pack, rounded, tiny)
    apart, far = float((values - expected).abs().max()), float((read - like).norm() / like.norm())
    exact, foreign = (scores(pack, one, tiny)[0].fingerprint for one in (plain, tiny.model("flux", 1)))
    draw = torch.Generator().manual_seed(1)
    lora = {
        name: ("diff", (0.1 * torch.randn(tuple(weight.shape), generator=draw),))
        for name, weight in model.model.named_parameters()
        if name.endswith("img_attn.qkv.weight")
    }
    patched = model.clone()
    assert patched.add_patches(lora, 1.0)
    over, changed, _ = scores(pack, patched, tiny)
    checks = {
        "scores": apart < 1e-3,
        "features": far < 1e-3,
        "coarse": backbone.fingerprint.coarse,
        "same checkpoint as in fp32": backbone.fingerprint.matches(exact),
        "not another": not backbone.fingerprint.matches(foreign),
        "LoRA counts": float((changed - values).abs().max()) > 1e-5,
        "LoRA is told": over.fingerprint.patched and over.fingerprint.sketch == backbone.fingerprint.sketch,
    }
    logger.info("%s: %d tensors in blocks; scores %.1e, features %.1e apart; %s", kind.name, blocks, apart, far, checks)
    return all(checks.values())


def main():
    """Run, and say on what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--kinds", default="Q8_0")
    given = parser.parse_args()
    library = runpy.run_path(str(HERE.parents[1] / ".ci" / "comfyui.py"))["declare_torchvision_ops"]()
    with tempfile.TemporaryDirectory() as base:
        for name in ("input", "output", "temp", "models/checkpoints", "models/unet", "custom_nodes", "user"):
            Path(base, name).mkdir(parents=True)
        own = in_process.import_comfyui(given.comfyui, Path(base))
        root = in_process.load_pack(own, HERE.parents[1])
        logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
        version = importlib.import_module("comfyui_version").__version__
        logger.info("PyTorch %s, ComfyUI %s, gguf %s", torch.__version__, version, importlib.metadata.version("gguf"))
        tiny = helpers()
        told_its_sizes(sys.modules["latent_critic_tiny_transformers"].CONFIGS["flux"])
        nodes = loader(given.pack.resolve())
        pack = lambda name: importlib.import_module(f"{root.__name__}.{name}")  # noqa: E731
        kinds = [gguf.GGMLQuantizationType[name] for name in given.kinds.split(",")]
        good = [compare(pack, tiny, nodes, Path(base), kind) for kind in kinds]
    del library
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
