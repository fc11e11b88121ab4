"""Contents of a few hundred pictures, read off the shipped judge's own network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from ..data.rated import RatedImage
from ..files import write_text
from ..images import load_image
from ..methods.judge import SHIPPED
from ..nets.judge import statistics
from ..nets.judge_file import read
from ..nets.views import global_view
from .content import content_groups, united

_PER_GROUP = 5


def contents(paths: Sequence[Path], groups: Sequence[str], share: float, seed: int = 0) -> list[int]:
    """Pictures and their named groups → numbers that pictures of one content, or of one group, share.

    Raises:
        UnreadableFile: a picture cannot be read.
        MissingDependency: scikit-learn is not installed.
    """
    network = read(SHIPPED)[0].backbone
    with torch.inference_mode():
        whole = torch.cat([statistics(network.features(global_view(load_image(path)))) for path in paths])
    return united(content_groups(whole, _PER_GROUP, seed), groups, share)


def kept_contents(images: Sequence[RatedImage], folder: Path, share: float, seed: int = 0) -> list[int]:
    """As :func:`contents`, kept in a folder: they take a forward of the judge's network a picture."""
    told = [[image.path.name, image.group] for image in images] + [share, seed]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
    file = folder / f"contents-{key}.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    found = contents([image.path for image in images], [image.group for image in images], share, seed)
    write_text(file, json.dumps(found))
    return found
