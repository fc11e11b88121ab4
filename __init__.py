"""Latent Critic: the diffusion model you have already loaded becomes the judge of its own images."""

import importlib.util

WEB_DIRECTORY = "./web"
__version__ = "0.1.0"

# ComfyUI imports this file as a custom node pack; everywhere else the package is an ordinary library.
if __package__ and importlib.util.find_spec("comfy_api") is not None:
    from .nodes import comfy_entrypoint

    __all__ = ["WEB_DIRECTORY", "__version__", "comfy_entrypoint"]
else:
    __all__ = ["WEB_DIRECTORY", "__version__"]
