"""The demo's pictures: free samples that scikit-image's package carries, each damaged step by step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.similarity import VISIBLE
from ..errors import MissingDependency
from ..files import whole_file

if TYPE_CHECKING:
    from torch import Tensor

#: Colour photographs inside scikit-image's wheel, so nothing is downloaded. By its documentation: astronaut (NASA) and
#: rocket (SpaceX) are in the public domain, chelsea and coffee are CC0 by their photographers.
PICTURES = ("astronaut", "chelsea", "coffee", "rocket")


@dataclass(frozen=True, slots=True)
class Step:
    """One picture of a ladder.

    Attributes:
        path: Its file.
        picture: The sample's name.
        distortion: The kind of damage, or ``none``.
        severity: 0 (untouched) to 5.
        similarity: SSIM to the untouched picture, 1 for itself.
    """

    path: Path
    picture: str
    distortion: str
    severity: int
    similarity: float


def write_ladders(folder: Path, kinds: Sequence[str], pictures: Sequence[str] = PICTURES, seed: int = 0) -> list[Step]:
    """Write every sample untouched and with each kind of damage at severities 1 to 5, as PNG.

    Raises:
        MissingDependency: scikit-image is not installed.
    """
    return [step for name in pictures for step in _one_picture(folder, name, kinds, seed)]


def _one_picture(folder: Path, name: str, kinds: Sequence[str], seed: int) -> Iterator[Step]:
    from ..data.distortions import SEVERITIES, distort

    original = _sample(name)
    clean = _save(original, folder / f"{name}.png")
    yield Step(clean, name, "none", 0, 1.0)
    for kind in kinds:
        for severity in SEVERITIES:
            damaged = distort(original, kind, severity, seed)
            path = _save(damaged, folder / f"{name}_{kind}_{severity}.png")
            yield Step(path, name, kind, severity, _similarity(original, damaged))


def count_falls(steps: Iterable[Step], scores: Iterable[float | None]) -> tuple[int, int]:
    """How many visible steps of damage lowered the score, and how many visible steps there are.

    A step goes from one severity to the next; it is visible when SSIM falls by ``VISIBLE`` or more.
    """
    table = {
        (step.picture, step.distortion, step.severity): (step.similarity, score)
        for step, score in zip(steps, scores, strict=True)
    }
    fell = visible = 0
    for (picture, kind, severity), (similarity, score) in table.items():
        if severity == 0:
            continue
        before = table[(picture, kind, severity - 1)] if severity > 1 else table[(picture, "none", 0)]
        if score is None or before[1] is None or before[0] - similarity < VISIBLE:
            continue
        visible += 1
        fell += score < before[1]
    return fell, visible


def _sample(name: str) -> Tensor:
    import torch

    array = getattr(_skimage("data"), name)()
    return torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255.0


def _similarity(original: Tensor, damaged: Tensor) -> float:
    from ..data.similarity import ssim

    return ssim(original, damaged)


def _skimage(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"skimage.{module}")
    except ImportError as error:
        raise MissingDependency(
            "scikit-image, whose sample pictures the demo uses",
            "no module skimage",
            "pip install 'latent-critic[demo]', or score pictures of your own with: latent-critic rank FOLDER",
        ) from error


def _save(image: Tensor, path: Path) -> Path:
    from ..images import to_picture

    with whole_file(path) as temporary:
        to_picture(image).save(temporary, "PNG")
    return path
