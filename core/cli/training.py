"""What training commands share: rated pictures by name, model and processes, progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..data.rated import RatedSet
    from ..hosts.diffusers.backbone import DiffusersBackbone
    from ..train.genziqa_world import World
    from ..train.stepping import Watch


def model_and_processes(arguments: argparse.Namespace, most_rows: int) -> tuple[DiffusersBackbone, World]:
    """The model folder on the device that ``--device``, ``--accelerate`` and ``--threads`` say, and the processes.

    Args:
        arguments: Of a training command.
        most_rows: In one forward of the denoiser.
    """
    import torch

    from ..hosts.diffusers.backbone import DiffusersBackbone
    from ..hosts.diffusers.loading import load_pipeline
    from ..train.genziqa_world import Accelerated, Alone

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    world = Accelerated() if arguments.accelerate else Alone()
    device = str(world.device) if isinstance(world, Accelerated) else arguments.device
    pipeline = load_pipeline(arguments.model, device)
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)  # a third less time on a CPU
    return DiffusersBackbone(pipeline, most_rows=most_rows), world


def rated(text: str) -> RatedSet:
    """``LOADER=PATH[:WORST:BEST]`` → the part of the set that may be trained on.

    Raises:
        BadInput: another form, or a set that is for reporting only.
    """
    from ..data.loaders import load, rated_csv
    from ..errors import BadInput

    name, equals, rest = text.partition("=")
    parts = rest.rsplit(":", 2)
    scaled = len(parts) == 3 and all(map(_is_number, parts[1:]))
    path = parts[0] if scaled else rest
    if not equals or not path or (scaled and name != "csv"):
        raise BadInput("--data LOADER=PATH, or csv=FILE:WORST:BEST", text, "Write for example biq2021=DIR.")
    data = rated_csv(path, scale=(float(parts[1]), float(parts[2]))) if scaled else load(name, path)
    splits = {image.split for image in data.images}
    if splits == {"test"}:
        raise BadInput("a set with a part to train on", f"{data.name}, which is for reporting only", "Leave it out.")
    return data.part("train") if "train" in splits else data


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def progress(steps: int, shown: bool) -> Iterator[Watch]:
    """A bar over the steps, as a watch; none where it is not shown."""
    from tqdm import tqdm

    with tqdm(total=steps, file=sys.stderr, disable=None if shown else True, leave=False) as bar:

        def watch(what: str, done: int, total: int, figures: dict[str, float]) -> None:
            bar.set_description(what, refresh=False)
            bar.n = done
            bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items()})

        yield watch
