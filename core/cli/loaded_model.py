"""Arguments that name a diffusion model and the hyperfeatures to read from it, and what they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import BadInput
from .inside_comfyui import is_inside

if TYPE_CHECKING:
    from torch import nn

    from ..backbone.contracts import Backbone
    from ..methods.hyperfeature_options import HyperfeatureOptions
    from ..methods.hyperfeatures import Hyperfeatures
    from ..methods.on_model import Place

_EMBEDDED = "embedded"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model, and who runs it."""
    group = parser.add_argument_group("model")
    add_model_place(group)
    group.add_argument("--device", default="auto", help="cpu, cuda … (default: a GPU when there is one)")


def add_model_place(group: Any) -> None:
    """``--model``, ``--comfyui`` and ``--checkpoint``, in a group of arguments."""
    add_model_name(group)
    group.add_argument("--comfyui", type=Path, metavar="DIR", help="run by the ComfyUI in this folder")
    group.add_argument("--checkpoint", type=Path, metavar="FILE", help="with --comfyui: a checkpoint file")


def add_model_name(group: Any) -> None:
    """``--model``, in a group of arguments."""
    group.add_argument(
        "--model",
        default=_EMBEDDED,
        metavar="NAME",
        help="embedded (default), or a folder in diffusers' layout; run by diffusers unless --comfyui is given",
    )


def add_features(parser: argparse.ArgumentParser) -> None:
    """What is read from it; every default is the library's own."""
    group = parser.add_argument_group("hyperfeatures")
    group.add_argument("--single-level", action="store_true", help="read each level by itself; nothing is guided")
    group.add_argument("--timesteps", nargs="+", type=int, metavar="T", help="falling DDPM timesteps of the levels")
    group.add_argument("--zeta1", type=float, help="strength of the measurement term; 0 leaves it out")
    group.add_argument("--zeta2", type=float, help="strength of the perceptual term; 0 leaves it out")
    group.add_argument("--psi", metavar="NAME", help="judge, ldm, latent, lpips or dists")
    group.add_argument("--start", choices=("noise", "inversion"), help="where the path starts")
    group.add_argument("--taps", nargs="+", metavar="TAP", help="feature taps (default: all up blocks)")
    group.add_argument("--reducers", nargs="+", metavar="NAME", help="mean, std, logstd, gmean3, top10 …")
    group.add_argument("--views", nargs="+", choices=("crops", "whole"), help="what is looked at (default: both)")
    group.add_argument("--most-crops", type=int, metavar="N", help="native-scale crops of a picture at most")
    group.add_argument("--side", type=int, metavar="PX", help="side of the crops (default: the model's own size)")
    group.add_argument("--position", action="store_true", help="take a grey picture's pattern away")
    group.add_argument("--noise-seed", type=int, metavar="N", help="of the path's noise")


def feature_options(arguments: argparse.Namespace) -> HyperfeatureOptions:
    """The hyperfeatures' settings.

    Raises:
        BadInput: settings that make no sense.
    """
    from ..guidance.options import GuidanceOptions, usual_zeta2
    from ..methods.hyperfeature_options import HyperfeatureOptions

    guidance = {
        "timesteps": None if arguments.timesteps is None else tuple(arguments.timesteps),
        "zeta1": arguments.zeta1,
        "zeta2": usual_zeta2(arguments.psi) if arguments.zeta2 is None else arguments.zeta2,
        "start": arguments.start,
        "seed": arguments.noise_seed,
    }
    rest: dict[str, Any] = {name: getattr(arguments, name) for name in ("psi", "most_crops", "side")}
    rest |= {
        name: None if getattr(arguments, name) is None else tuple(getattr(arguments, name))
        for name in ("taps", "reducers", "views")
    }
    kind = "single_level" if arguments.single_level else "guided_path"
    return HyperfeatureOptions(
        kind=kind,
        guidance=GuidanceOptions(**_given(guidance)),
        position=arguments.position,
        **_given(rest),
    )


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


class ModelChoice(Protocol):
    """Which model: parsed arguments, or anything that holds the same."""

    @property
    def model(self) -> str:
        """``embedded``, or a folder in diffusers' layout."""
        ...

    @property
    def checkpoint(self) -> Path | None:
        """A checkpoint's file, for ComfyUI."""
        ...

    @property
    def device(self) -> str:
        """``auto``, ``cpu``, ``cuda`` …"""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One model in memory.

    Attributes:
        denoiser: Its U-Net or transformer.
        backbone: A host's backbone of it, by the scorer that will use it: some ask a host for more than others.
    """

    denoiser: nn.Module
    backbone: Callable[[str | None], Backbone]


def load_backbone(arguments: argparse.Namespace | ModelChoice, scorer: str | None = None) -> Backbone:
    """The backbone of :func:`load_model` for this scorer."""
    return load_model(arguments).backbone(scorer)


def load_model(arguments: argparse.Namespace | ModelChoice) -> LoadedModel:
    """The model; inside ComfyUI when ``--comfyui`` brought us there, else by diffusers.

    Raises:
        BadInput: a checkpoint without ComfyUI.
        UnreadableFile: no model at that place.
        UnsupportedFamily: a model of no known family.
        MissingDependency: diffusers is not installed.
    """
    if is_inside():
        parts = comfy_parts(arguments.model, arguments.checkpoint)
        return LoadedModel(parts[0].model.diffusion_model, lambda scorer: comfy_backbone(scorer, parts))
    if arguments.checkpoint is not None:
        raise BadInput("a ComfyUI folder with --checkpoint", "none", "Name it with --comfyui.")
    from .scorers import _device

    device = _device(arguments.device)
    try:
        from ..hosts.diffusers.backbone import DiffusersBackbone
        from ..hosts.diffusers.loading import load_pipeline
    except ImportError as error:
        from ..errors import MissingDependency

        remedy = "pip install 'latent-critic[diffusers]', or name a ComfyUI folder with --comfyui."
        raise MissingDependency("diffusers to run a model", str(error), remedy) from error
    pipeline = load_pipeline(arguments.model, device)
    backbone = DiffusersBackbone(pipeline)
    return LoadedModel(getattr(pipeline, "unet", None) or pipeline.transformer, lambda scorer: backbone)


def comfy_parts(model: str = _EMBEDDED, checkpoint: str | Path | None = None) -> tuple[Any, Any, Any]:
    """ComfyUI's MODEL, CLIP and VAE of a checkpoint's file, or of a folder that `latent-critic train ldm` wrote.

    Raises:
        UnreadableFile: no model at that place.
    """
    if checkpoint is not None:
        from ..hosts.comfyui.standalone import load_checkpoint

        return load_checkpoint(Path(checkpoint))
    from ..hosts.comfyui import embedded
    from ..nets.critic_ldm import SHIPPED

    folder = SHIPPED if model == _EMBEDDED else Path(model)
    return embedded.load_model(folder), embedded.load_clip(folder), embedded.load_vae(folder)


def comfy_backbone(scorer: str | None, parts: tuple[Any, Any, Any]) -> Backbone:
    """ComfyUI's host with what this scorer asks of it.

    Raises:
        UnsupportedFamily: no known family, or one that this scorer cannot use.
    """
    if scorer == "genziqa":
        from ..hosts.comfyui.adaptable import AdaptableComfyBackbone

        return AdaptableComfyBackbone(*parts)
    if scorer == "dp_iqa":
        from ..hosts.comfyui.residuals import ResidualComfyBackbone

        return ResidualComfyBackbone(*parts)
    from ..hosts.comfyui.backbone import ComfyBackbone

    return ComfyBackbone(*parts)


def comfy_place() -> Place | None:
    """How our small networks are put where ComfyUI wants them; ``None`` outside of it."""
    if not is_inside():
        return None
    from ..hosts.comfyui.own_nets import place

    return place


def load_features(arguments: argparse.Namespace) -> Hyperfeatures:
    """The model's hyperfeatures with these settings."""
    from ..methods.hyperfeatures import Hyperfeatures
    from ..methods.psis import make_psi

    options = feature_options(arguments)
    backbone = load_backbone(arguments)
    wanted = options.kind == "guided_path" and options.guidance.zeta2 > 0.0
    return Hyperfeatures(backbone, options, make_psi(options.psi, backbone) if wanted else None)
