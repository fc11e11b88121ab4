"""What needs a GPU: gradients where weights are cast as they are used, scores in few bits, memory, on a real device.

Not a test: run it by hand as CONTRIBUTING.md says, once for each way in which ComfyUI may hold weights:

    python tests/host/on_a_gpu.py COMFYUI_FOLDER [--flags lowvram] [--dtype fp8] [--families sd15,flux]

It compares with the same weights in fp32 on the CPU, and prints driver, versions, memory and time. ``--device cpu``
only tries the script.
"""

import argparse
import importlib
import logging
import runpy
import sys
import tempfile
import time
from pathlib import Path

import in_process
import torch

HERE = Path(__file__).resolve().parent
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
logger = logging.getLogger("on_a_gpu")


def helpers():
    """The builders of tiny models, under the names that they know each other by."""
    sys.path.insert(0, str(HERE))
    for name in ("tiny_models", "tiny_transformers"):
        sys.modules[f"latent_critic_{name}"] = importlib.import_module(name)
    return sys.modules["latent_critic_tiny_models"]


def loaded(tiny, family, dtype, device):
    """A MODEL, computing in fp32 where its weights are of 8 bits; under LoRA in fp32, where it is not rounded away."""
    compute = torch.float32 if dtype.itemsize == 1 or device == "cpu" else None
    model = tiny.model(family, 0, dtype, compute)
    if device == "cpu":
        model.load_device = torch.device("cpu")
    if dtype != torch.float32:
        return model
    draw = torch.Generator().manual_seed(1)
    changes = {
        name: ("diff", (0.02 * torch.randn(weight.shape, generator=draw),))
        for name, weight in model.model.named_parameters()
        if name.startswith("diffusion_model.") and weight.ndim == 2
    }
    patched = model.clone()
    patched.add_patches(changes, 1.0)
    return patched


def slope(pack, tiny, family, model):
    """x0 and the gradient through the denoiser, on the CPU."""
    backbone = pack("core.hosts.comfyui.backbone").ComfyBackbone(model, tiny.clip(family))
    z_t = 0.5 * backbone.noise((2, backbone.family.latent_channels, 16, 16), 1)
    sigma, texts = torch.tensor([0.3, 0.6]), backbone.embed(["a good photo"] * 2)
    with torch.inference_mode(), backbone.gradients(denoiser=True, decoder=False):
        x = z_t.clone().requires_grad_(True)
        x0 = backbone.denoise(x, sigma.clone(), texts)
        (found,) = torch.autograd.grad(x0.float().square().mean(), x)
    return x0.detach().float().cpu(), found.float().cpu()


def apart(found, expected):
    """Relative distance."""
    return float((found - expected).norm() / expected.norm())


def compare(pack, tiny, family, dtype, device):
    """One family in one dtype against the same rounded weights in fp32 on the CPU."""
    management = importlib.import_module("comfy.model_management")
    model = loaded(tiny, family, dtype, device)
    rounded = {name: value.float().cpu() for name, value in model.model.diffusion_model.state_dict().items()}
    exact = loaded(tiny, family, torch.float32, "cpu") if dtype == torch.float32 else tiny.model(family)
    exact.load_device = torch.device("cpu")
    exact.model.diffusion_model.load_state_dict(rounded)
    expected = slope(pack, tiny, family, exact)
    management.unload_all_models()
    recasting = pack("core.hosts.comfyui.recasting")
    recast, own = [], recasting.casts
    recasting.casts = lambda *args: recast.append(own(*args)) or recast[-1]
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    found = slope(pack, tiny, family, model)
    seconds = time.perf_counter() - began
    recasting.casts = own
    peak = torch.cuda.max_memory_allocated() / 2**20 if device != "cpu" else float("nan")
    told = f"x0 {apart(found[0], expected[0]):.1e}, gradient {apart(found[1], expected[1]):.1e} apart"
    logger.info("%s: %s; %d layers cast; %.1f s; %.0f MiB", family, told, sum(recast), seconds, peak)
    management.unload_all_models()
    return apart(found[1], expected[1])


def main():
    """Run, and say on what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--flags", default="", help="of ComfyUI, with commas between: lowvram, novram, highvram …")
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32")
    parser.add_argument("--families", default="sd15,sdxl,sd3,flux,zimage,qwen_image,wan21")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given = parser.parse_args()
    library = runpy.run_path(str(HERE.parents[1] / ".ci" / "comfyui.py"))["declare_torchvision_ops"]()
    torch.backends.cudnn.allow_tf32 = False
    flags = [flag for flag in given.flags.split(",") if flag]
    with tempfile.TemporaryDirectory() as base:
        for name in ("input", "output", "temp", "models/checkpoints", "custom_nodes", "user"):
            Path(base, name).mkdir(parents=True)
        nodes = in_process.import_comfyui(given.comfyui, Path(base), cpu=given.device == "cpu", flags=flags)
        root = in_process.load_pack(nodes, HERE.parents[1])
        logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
        if given.device != "cpu":
            driver = torch._C._cuda_getDriverVersion()
            logger.info("%s, CUDA %s, driver for %s", torch.cuda.get_device_name(), torch.version.cuda, driver)
        version = importlib.import_module("comfyui_version").__version__
        logger.info("PyTorch %s, ComfyUI %s, %s %s", torch.__version__, version, given.dtype, flags)
        tiny = helpers()
        worst = max(
            compare(
                lambda name: importlib.import_module(f"{root.__name__}.{name}"),
                tiny, family, DTYPES[given.dtype], given.device,
            )
            for family in given.families.split(",")
        )  # fmt: skip
    allowed = 1e-3 if given.dtype in ("fp32", "fp8") else 0.1
    logger.info("worst gradient: %.1e, allowed %.0e", worst, allowed)
    del library
    return int(worst > allowed)


if __name__ == "__main__":
    sys.exit(main())
