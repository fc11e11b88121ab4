"""Fixtures for every test that needs a real ComfyUI. It is found or fetched, and imported, on first use only."""

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load_by_path(path, name):
    """Import one file that lies outside every package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def comfyui_folder():
    """A ComfyUI tree. Where none can be had the test is skipped; under CI=true, or when one is misnamed, it fails."""
    finder = load_by_path(ROOT / ".ci" / "comfyui.py", "latent_critic_ci_comfyui")
    try:
        return finder.find_or_fetch()
    except (OSError, RuntimeError) as error:
        message = f"no ComfyUI: {error}"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def comfyui(comfyui_folder, tmp_path_factory):
    """ComfyUI imported into this process, on the CPU, with our test nodes registered. Gives its module `nodes`."""
    finder = load_by_path(ROOT / ".ci" / "comfyui.py", "latent_critic_ci_comfyui")
    in_process = load_by_path(ROOT / "tests/host/in_process.py", "latent_critic_in_process")
    base = tmp_path_factory.mktemp("comfyui")
    for folder in ("input", "output", "temp", "models/checkpoints", "custom_nodes"):
        (base / folder).mkdir(parents=True)
    library = finder.declare_torchvision_ops()
    nodes = in_process.import_comfyui(comfyui_folder, base)
    nodes.latent_critic_torchvision = library  # dropped, the two operators would go with it
    test_nodes = load_by_path(ROOT / "tests/host/tiny_nodes.py", "latent_critic_tiny_nodes")
    nodes.NODE_CLASS_MAPPINGS.update(test_nodes.NODE_CLASS_MAPPINGS)
    return nodes


@pytest.fixture(scope="session")
def diffusers():
    """The module diffusers, importable also where torchvision's binary does not fit torch."""
    finder = load_by_path(ROOT / ".ci" / "comfyui.py", "latent_critic_ci_comfyui")
    finder.library_for_diffusers = finder.declare_torchvision_ops()  # dropped, the two operators would go with it
    return importlib.import_module("diffusers")


@pytest.fixture(scope="session")
def comfyui_base(comfyui):
    """ComfyUI's base directory in this run: input/, output/, temp/, models/."""
    return Path(importlib.import_module("folder_paths").base_path)


@pytest.fixture(scope="session")
def pack(comfyui):
    """Our pack as ComfyUI loads it: `pack("core.records")` gives that copy's module.

    Its classes are a second copy beside `latent_critic.*`; a test uses the one or the other, never both.
    """
    in_process = load_by_path(ROOT / "tests/host/in_process.py", "latent_critic_in_process")
    root = in_process.load_pack(comfyui, ROOT)

    def module(name=""):
        return importlib.import_module(f"{root.__name__}.{name}") if name else root

    return module


@pytest.fixture
def run_workflow(comfyui, pack):
    """Run a prompt in API form through the real executor: `run_workflow(prompt)` → Run. Caches live for one test."""
    return load_by_path(ROOT / "tests/host/in_process.py", "latent_critic_in_process").Executor()


@pytest.fixture(scope="session")
def tiny(comfyui):
    """Builders: `tiny.model(family, seed, dtype)`, `tiny.clip(family, seed)`, `tiny.vae(seed)`."""
    models = load_by_path(ROOT / "tests/host/tiny_models.py", "latent_critic_tiny_models")
    load_by_path(ROOT / "tests/host/tiny_transformers.py", "latent_critic_tiny_transformers")
    return models


@pytest.fixture(scope="session")
def tiny_gguf(tiny):
    """Tiny models in quantised blocks: `tiny_gguf.gguf_model(family)`, `tiny_gguf.rounded_model(family)`."""
    return load_by_path(ROOT / "tests/host/tiny_gguf.py", "latent_critic_tiny_gguf")


@pytest.fixture(scope="session")
def tiny_pipelines(tiny, diffusers):
    """Diffusers pipelines with the weights of tiny models: `tiny_pipelines.pipeline(family, model, vae)`."""
    return load_by_path(ROOT / "tests/host/tiny_pipelines.py", "latent_critic_tiny_pipelines")


@pytest.fixture(scope="session")
def tiny_model(tiny):
    """Build a tiny ModelPatcher: (family, seed, dtype)."""
    return tiny.model


@pytest.fixture(scope="session")
def tiny_clip(tiny):
    """The tiny CLIP of a family and seed, built once each."""
    return functools.lru_cache(tiny.clip)


@pytest.fixture(scope="session")
def tiny_vae(tiny):
    """The tiny VAE of a seed, built once each."""
    return functools.lru_cache(tiny.vae)


@pytest.fixture(scope="session")
def sd15_checkpoint(tiny, comfyui_base):
    """The file name of an SD 1.5-shaped checkpoint that CheckpointLoaderSimple finds."""
    return tiny.sd15_checkpoint(comfyui_base / "models/checkpoints/tiny_sd15.safetensors").name


@pytest.fixture
def start_server(comfyui_folder, sd15_checkpoint, comfyui_base):
    """Start further servers: `start_server(base, *options)` → Server that is up. All are ended with the test."""
    server = load_by_path(ROOT / "tests/host/server.py", "latent_critic_server")
    checkout = load_by_path(ROOT / ".ci" / "checkout.py", "latent_critic_ci_checkout")
    with contextlib.ExitStack() as running:

        def start(base, *options):
            if not (base / "custom_nodes").exists():
                checkout.copy(base / "custom_nodes" / "latent-critic", without=("tests/", ".ci/"))
            checkpoint = comfyui_base / "models/checkpoints" / sd15_checkpoint
            return running.enter_context(server.Server(comfyui_folder, base, checkpoint, options))

        yield start


@pytest.fixture(scope="session")
def comfyui_server(comfyui_folder, sd15_checkpoint, comfyui_base, tmp_path_factory):
    """A ComfyUI server in a process of its own: this checkout in its custom_nodes, the tiny checkpoint to load."""
    server = load_by_path(ROOT / "tests/host/server.py", "latent_critic_server")
    checkout = load_by_path(ROOT / ".ci" / "checkout.py", "latent_critic_ci_checkout")
    base = tmp_path_factory.mktemp("server")
    checkout.copy(base / "custom_nodes" / "latent-critic", without=("tests/", ".ci/"))
    with server.Server(comfyui_folder, base, comfyui_base / "models/checkpoints" / sd15_checkpoint) as running:
        yield running


@pytest.fixture(scope="session")
def shipped():
    """`shipped("dp_iqa")` → what can be asked of a folder of core/assets; see tests/shipped_cards.py."""
    cards = load_by_path(ROOT / "tests" / "shipped_cards.py", "latent_critic_shipped_cards")
    return lambda name: cards.Shipped(ROOT / "core" / "assets" / name)
