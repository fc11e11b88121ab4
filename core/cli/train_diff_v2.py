"""``latent-critic train diff-v2-iqa``: learn DiffV2IQA's branches on rated pictures and their restorations."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import Subparsers, command
from .console import note
from .training import add_head, add_training, progress, trained_words, training_given

if TYPE_CHECKING:
    from ..methods.diff_v2_iqa_settings import DiffSettings
    from ..nets.diff_v2 import DiffShape
    from ..restoration.contract import Restorer
    from ..train.diff_v2_request import DiffRequest

#: Of restorations, kept in the run's folder.
_MOST_BYTES = 200_000_000_000


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds,
        "diff-v2-iqa",
        "train a DiffV2IQA head: both branches over a restorer",
        "Restores every picture once, then trains on what the frozen backbones see. A stopped or killed run goes on "
        "with the same command. Several GPUs: start it with accelerate launch.",
    )
    add_head(parser, "state, log, cache")
    parser.add_argument(
        "--study", type=Path, metavar="FILE", help="also train it without restored pictures and with either branch "
        "alone, and write what each is worth (JSON)"
    )  # fmt: skip
    _add_restorer(parser)
    _add_reading(parser)
    _add_sizes(parser)
    group = add_training(parser, "views restored together", "share dropped in the places' heads (default: 0.1)")
    group.add_argument("--cache", choices=("features", "restorations"), help="what is kept of a picture")
    parser.set_defaults(run=run)


def _add_restorer(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("restorer (stays the head's)")
    group.add_argument("--restorer", type=Path, metavar="FILE", help="pixel-space restorer (default: the package's)")
    group.add_argument("--restore-steps", type=int, metavar="N", help="its steps (default: as its file says)")
    group.add_argument("--model", metavar="DIR", help="restore with this model instead: a diffusers folder, embedded")
    group.add_argument("--restore-seed", type=int, default=0, metavar="N", help="of its noise (default: 0)")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how a picture is read (stays in the head)")
    group.add_argument("--side", type=int, help="of the squares in pixels (default: 224, as published)")
    group.add_argument("--views", choices=("whole", "crops", "both"), help="(default: whole)")
    group.add_argument("--most-crops", type=int, metavar="N", help="crops of a picture at most (default: 4)")
    group.add_argument("--patches", choices=("vit", "judge"), help="VCG's maps: a ViT (published), the judge (default)")
    group.add_argument(
        "--vectors", choices=("resnet", "judge"), help="VDA's: ResNet50 (published), the judge (default)"
    )
    group.add_argument("--vit-file", type=Path, metavar="FILE", help="timm's ViT (default: Hugging Face's cache)")
    group.add_argument("--resnet-file", type=Path, metavar="FILE", help="ResNet50 (default: torchvision's cache)")
    group.add_argument("--own-vit", action="store_true", help="train a small ViT with the branches, kept in the head")
    for name, default, words in (
        ("patch", 8, "of a patch in pixels"), ("width", 768, "channels"), ("depth", 12, "blocks"), ("heads", 12, "")
    ):  # fmt: skip
        group.add_argument(f"--vit-{name}", type=int, default=default, help=f"{words} (default: {default})".strip())
    group.add_argument("--blocks", type=int, nargs=4, default=(6, 7, 8, 9), metavar="N", help="of the ViT, from 0")


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("branches")
    group.add_argument("--branch", choices=("both", "vcg", "vda"), default="both")
    group.add_argument("--weight", type=float, default=5.0, help="λ in VCG + λ · VDA (default: 5, as published)")
    group.add_argument("--learn-weight", action="store_true", help="learn λ, beginning there")
    group.add_argument("--published-sizes", action="store_true", help="of both branches (default: narrow ones)")


def run(arguments: argparse.Namespace) -> int:
    """Restore, train, tell calls and validation figures."""
    import torch

    from ..files import write_text
    from ..train.diff_v2 import train_diff_v2
    from ..train.diff_v2_study import study
    from ..train.genziqa_world import Accelerated, Alone

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    world = Accelerated() if arguments.accelerate else Alone()
    device = str(world.device) if isinstance(world, Accelerated) else arguments.device
    request = request_of(arguments)
    restorer = _restorer(arguments, device)
    with progress(request.steps, world.main) as watch:
        result = train_diff_v2(request, restorer, watch, world, device)
        found = study(request, result, restorer, watch, world, device) if arguments.study and result.head else None
    if not world.main:
        return 0
    if found is not None:
        write_text(arguments.study, json.dumps(found, indent=1) + "\n")
        note(f"wrote {arguments.study}")
    written = request.out if result.head else None
    note(trained_words(result.step, result.seconds_per_step, written, result.validation))
    note(f"{result.calls:,} denoiser calls")
    return 0


def _restorer(arguments: argparse.Namespace, device: str) -> Restorer:
    """Ours or the model's, its restorations kept in the run's folder."""
    from ..methods.diff_v2_iqa_make import restorer_file
    from ..restoration.cache import CachedRestorer, RestorationCache

    if arguments.model is None:
        from ..restoration.sr3 import Sr3Restorer, usual_options
        from ..restoration.weights import load_restorer

        net, facts = load_restorer(restorer_file(arguments.restorer))
        options = replace(usual_options(facts), seed=arguments.restore_seed)
        if arguments.restore_steps:
            options = replace(options, steps=arguments.restore_steps)
        made: Restorer = Sr3Restorer(net.to(device), options)
    else:
        from ..hosts.diffusers.backbone import DiffusersBackbone
        from ..hosts.diffusers.loading import load_pipeline
        from ..restoration.shared import SharedOptions, SharedRestorer

        pipeline = load_pipeline(arguments.model, device)
        backbone = DiffusersBackbone(pipeline, most_rows=max(4, arguments.rows or 0))
        made = SharedRestorer(backbone, SharedOptions(seed=arguments.restore_seed))
    return CachedRestorer(made, RestorationCache(arguments.folder / "restorations", _MOST_BYTES))


def request_of(arguments: argparse.Namespace) -> DiffRequest:
    """The one request behind the arguments."""
    from ..methods.diff_v2_iqa_eyes import EyeFiles
    from ..train.diff_v2_request import DiffRequest

    settings = _settings(arguments)
    return DiffRequest(
        **training_given(arguments),
        settings=settings,
        shape=_shape(arguments, settings),
        files=EyeFiles(arguments.vit_file, arguments.resnet_file),
        own_vit=arguments.own_vit,
        cache=arguments.cache or "features",
    )


def _settings(arguments: argparse.Namespace) -> DiffSettings:
    from ..methods.diff_v2_iqa_settings import DiffSettings
    from ..nets.diff_v2_vit import VitShape

    told = vars(arguments)
    names = ("side", "views", "most_crops", "patches", "vectors")
    given: dict[str, Any] = {name: told[name] for name in names if told[name] is not None}
    if given.get("patches") == "vit":
        sizes = {name: told[f"vit_{name}"] for name in ("patch", "width", "depth", "heads")}
        given |= {"vit": VitShape(given.get("side", 224), **sizes), "blocks": tuple(arguments.blocks)}
    return DiffSettings(**given)


def _shape(arguments: argparse.Namespace, settings: DiffSettings) -> DiffShape:
    from ..nets.diff_v2 import DiffShape

    changes = {"branch": arguments.branch, "weight": arguments.weight, "learned": arguments.learn_weight}
    if arguments.published_sizes:
        return DiffShape.published(**changes)
    return DiffShape.narrow(settings.maps, settings.features, settings.grid, **changes)
