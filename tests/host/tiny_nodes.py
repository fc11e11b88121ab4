"""Test-only nodes: hand tiny models to a graph, make pictures and latents, and keep what arrives.

Registered by tests/conftest.py in process; a server run may link this file into its custom_nodes folder.
"""

import importlib.util
import sys
from pathlib import Path

import torch


def _tiny_models():
    name = "latent_critic_tiny_models"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).resolve().with_name("tiny_models.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


class AnyType(str):
    """A socket type that takes every link."""

    def __ne__(self, other):
        return False

    __hash__ = str.__hash__


ANY = AnyType("*")


class TestTinyCheckpoint:
    """MODEL, CLIP and VAE of a tiny family."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"family": ("STRING", {"default": "sd15"}), "seed": ("INT", {"default": 0})}}

    def load(self, family, seed):
        tiny = _tiny_models()
        text = "sd15" if family == "unknown" else family
        return tiny.model(family, seed), tiny.clip(text, seed), tiny.vae(seed)


class TestNoisePictures:
    """A batch of smooth random pictures; `nan` names one that is broken (-1: none)."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        numbers = {"count": 4, "width": 64, "height": 64, "seed": 0, "nan": -1}
        return {"required": {name: ("INT", {"default": value, "min": -1}) for name, value in numbers.items()}}

    def make(self, count, width, height, seed, nan):
        generator = torch.Generator().manual_seed(seed)
        small = torch.rand(count, 3, 8, 8, generator=generator)
        images = torch.nn.functional.interpolate(small, (height, width), mode="bilinear").movedim(1, -1)
        if 0 <= nan < count:
            images[nan] = float("nan")
        return (images,)


class TestMasks:
    """Masks of the left parts of pictures, in percent of the width, apart by commas."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"percent": ("STRING", {"default": "50"}), "size": ("INT", {"default": 64})}}

    def make(self, percent, size):
        masks = torch.zeros(len(percent.split(",")), size, size)
        for mask, share in zip(masks, percent.split(","), strict=True):
            mask[:, : int(share) * size // 100] = 1.0
        return (masks,)


class TestKeep:
    """An output node that keeps the value it is given, under a name (read by `Run.kept`)."""

    RETURN_TYPES = ()
    FUNCTION = "keep"
    OUTPUT_NODE = True
    CATEGORY = "tests"
    kept = {}  # noqa: RUF012 (one store for the whole test process, emptied by each run)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING", {"default": "value"}), "value": (ANY, {"forceInput": True})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")

    def keep(self, name, value):
        self.kept.setdefault(name, []).append(value)
        return {}


NODE_CLASS_MAPPINGS = {
    "TestTinyCheckpoint": TestTinyCheckpoint,
    "TestNoisePictures": TestNoisePictures,
    "TestMasks": TestMasks,
    "TestKeep": TestKeep,
}
