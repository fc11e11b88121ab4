"""What training commands share: rated pictures by name, model and processes, progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def add_head(parser: argparse.ArgumentParser, kept: str) -> None:
    """Data, head and run of a training on one rated set; ``kept``: what lies in the run's folder."""
    parser.add_argument(
        "--data", required=True, metavar="LOADER=PATH[:WORST:BEST]", help="rated pictures: biq2021=DIR, csv=FILE:0:5 …"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the head's .safetensors")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", dest="folder", help=kept)


def add_training(parser: argparse.ArgumentParser, rows: str, drop: str) -> argparse._ArgumentGroup:
    """How a head on one rated set is trained, see :class:`~..train.rated_request.RatedRequest`.

    Args:
        parser: Of the command.
        rows: What ``--rows`` counts.
        drop: What ``--drop`` drops, and its default.

    Returns:
        The group, for what only this command asks.
    """
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=int, help="in all (default: 1000)")
    group.add_argument("--minutes", type=float, help="stop after this long, saved")
    group.add_argument("--batch", type=int, help="pictures a step (default: 16)")
    group.add_argument("--rows", type=int, help=f"{rows} (default: 4)")
    group.add_argument("--rate", type=float, help="highest rate of AdamW (default: 1e-3)")
    group.add_argument("--decay", type=float, help="weight decay (default: 0.01)")
    group.add_argument("--drop", type=float, help=drop)
    group.add_argument("--average", type=float, help="decay of the weights' moving average (default: 0.995)")
    for name, default in (("mse", 1.0), ("rank", 0.0), ("plcc", 0.0)):
        group.add_argument(f"--{name}-weight", type=float, default=default, help=f"of that loss (default: {default:g})")
    group.add_argument("--no-mirror", action="store_true", help="do not mirror half of the pictures")
    group.add_argument("--limit", type=int, metavar="N", help="at most N pictures")
    group.add_argument("--share", type=float, help="held back for validation (default: 0.1)")
    group.add_argument("--by-group", action="store_true", help="split by the set's groups, not by content too")
    group.add_argument("--validate-every", type=int, metavar="STEPS")
    group.add_argument("--validate-on", type=int, metavar="N")
    group.add_argument("--calibrated-on", metavar="WORDS", help="whose ratings these are (default: your ratings)")
    group.add_argument("--seed", type=int, help="(default: 0)")
    group.add_argument("--device", default="cpu")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"))
    group.add_argument("--accelerate", action="store_true", help="under accelerate launch; its device")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    return group


def training_given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of a :class:`~..train.rated_request.RatedRequest` behind the arguments of both functions above."""
    from ..train.genziqa_losses import LossWeights

    names = (
        "steps", "minutes", "batch", "rows", "rate", "decay", "drop", "average", "limit", "share", "validate_every",
        "validate_on", "calibrated_on", "seed", "precision",
    )  # fmt: skip
    told = vars(arguments)
    return {
        "data": rated(arguments.data),
        "out": arguments.out,
        "run": arguments.folder,
        "losses": LossWeights(arguments.mse_weight, arguments.rank_weight, arguments.plcc_weight),
        "flip": not arguments.no_mirror,
        "content": not arguments.by_group,
        **{name: told[name] for name in names if told[name] is not None},
    }


def trained_words(step: int, seconds: float, written: Path | None, validation: Mapping[str, Any]) -> str:
    """How far a run came, and how its head does on held-back pictures."""
    figures = ", ".join(f"{name} {value:.3f}" for name, value in validation.items() if isinstance(value, float))
    done = f"wrote {written}" if written else "saved; the same command goes on"
    return f"step {step}, {seconds:.2f} s a step; {done}; held back: {figures or 'not measured'}"


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
