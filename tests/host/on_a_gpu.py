"""What needs a GPU: gradients where weights are cast as they are used, scores in few bits, memory, on a real device.

Not a test: run it by hand as CONTRIBUTING.md says, once for each way in which ComfyUI may hold weights:

    python tests/host/on_a_gpu.py COMFYUI_FOLDER [--flags lowvram] [--dtype fp8] [--families sd15,flux]

It compares with the same weights in fp32 on the CPU, and prints driver, versions, memory and time. ``--device cpu``
only tries the script.
"""

import argparse
import importlib
import importlib.util
import logging
import runpy
import shutil
import subprocess
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


def start_dynamic_vram():
    """Before ComfyUI is imported: what its main.py does first, where it has dynamic VRAM."""
    if importlib.util.find_spec("comfy_aimdo") is not None:
        importlib.import_module("comfy_aimdo.control").init()


def dynamic_vram():
    """Whether dynamic VRAM is on: what ComfyUI's main.py, which cannot be imported, does after its imports."""
    enabled = getattr(importlib.import_module("comfy.cli_args"), "enables_dynamic_vram", None)
    management = importlib.import_module("comfy.model_management")
    if enabled is None or not enabled() or not management.is_nvidia():
        return False
    control, args = importlib.import_module("comfy_aimdo.control"), importlib.import_module("comfy.cli_args").args
    devices = [device.index for device in management.get_all_torch_devices()]
    try:
        found = control.init_devices((index, int(args.vram_headroom * 2**30)) for index in devices)
    except TypeError:  # an older comfy-aimdo
        found = control.init_devices(devices)
    if found:
        patchers = importlib.import_module("comfy.model_patcher")
        patchers.CoreModelPatcher = patchers.ModelPatcherDynamic
        importlib.import_module("comfy.memory_management").aimdo_enabled = True
    return bool(found)


def driver():
    """The card's driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def built(tiny, family, dtype, compute, device):
    """A MODEL as a loader makes it; on the CPU always of the plain kind."""
    if device != "cpu":
        return tiny.model(family, 0, dtype, compute)
    patchers = importlib.import_module("comfy.model_patcher")
    usual = getattr(patchers, "CoreModelPatcher", None)
    patchers.CoreModelPatcher = patchers.ModelPatcher
    try:
        model = tiny.model(family, 0, dtype, compute)
    finally:
        patchers.CoreModelPatcher = usual or patchers.ModelPatcher
    model.load_device = torch.device("cpu")
    return model


def loaded(tiny, family, dtype, device):
    """A MODEL, computing in fp32 where its weights are of 8 bits; under LoRA in fp32, where it is not rounded away."""
    compute = torch.float32 if dtype.itemsize == 1 or device == "cpu" else None
    model = built(tiny, family, dtype, compute, device)
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
    plain = dtype == torch.float32
    exact = loaded(tiny, family, dtype, "cpu") if plain else built(tiny, family, torch.float32, None, "cpu")
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
    parser.add_argument("--families", default="sd15,sdxl,sd3,flux,flux2,lumina2,zimage,qwen_image,wan21")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given = parser.parse_args()
    library = runpy.run_path(str(HERE.parents[1] / ".ci" / "comfyui.py"))["declare_torchvision_ops"]()
    torch.backends.cudnn.allow_tf32 = False
    flags = [flag for flag in given.flags.split(",") if flag]
    with tempfile.TemporaryDirectory() as base:
        for name in ("input", "output", "temp", "models/checkpoints", "custom_nodes", "user"):
            Path(base, name).mkdir(parents=True)
        if given.device != "cpu":
            start_dynamic_vram()
        nodes = in_process.import_comfyui(given.comfyui, Path(base), cpu=given.device == "cpu", flags=flags)
        root = in_process.load_pack(nodes, HERE.parents[1])
        logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
        if given.device != "cpu":
            told = (torch.cuda.get_device_name(), torch.version.cuda, driver(), dynamic_vram())
            logger.info("%s, CUDA %s, driver %s; dynamic VRAM: %s", *told)
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
