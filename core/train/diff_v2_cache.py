"""What no step changes, on disk: every picture is restored once, and read once where its backbones are frozen."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import BadInput
from ..files import sweep, whole_file
from ..images import load_image
from ..methods.diff_v2_iqa_head import identity_of
from ..methods.diff_v2_iqa_reading import Reading
from .features import content_of

_log = logging.getLogger(__name__)
_REASON = "reason"


@dataclass(frozen=True, slots=True)
class Kept:
    """A batch of pictures.

    Attributes:
        counts: Views of each.
        maps: [Σ views, …], or none; likewise.
        vectors: [Σ views, 4, …].
        pictures: [Σ views, 4, 3, side, side]: the input, d0, d1, d2.
    """

    counts: list[int]
    maps: Tensor | None = None
    vectors: Tensor | None = None
    pictures: Tensor | None = None


class SeenCache:
    """One file per picture, known by its bytes, whole or absent; half precision.

    Args:
        folder: Below which the files lie, in one folder for each restorer, backbones and way of reading.
        reading: Restorer and backbones.
        eyes: The backbones' identity.
        what: ``features``, or ``restorations`` of which features are computed at every step.
    """

    def __init__(
        self, folder: Path, reading: Reading, eyes: Mapping[str, str], what: Literal["features", "restorations"]
    ) -> None:
        self._reading, self._what = reading, what
        settings = reading.settings.to_dict()
        if what == "restorations":  # whatever reads them
            eyes, settings = {}, {name: settings[name] for name in ("side", "views", "most_crops")}
        told = [what, settings, identity_of(reading.restorer, eyes)]
        self._folder = folder / hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]
        self._files: dict[Path, Path] = {}
        self.noise_levels: tuple[float, ...] = ()

    def extract(
        self, paths: Sequence[Path], watch: Callable[[int, int], None] | None = None, *, again: bool = False
    ) -> list[Path]:
        """Write the files that are missing or damaged; stopped at any moment, it goes on at the first missing one.

        Args:
            paths: Pictures.
            watch: Called with (pictures done, in all); may raise to stop.
            again: Try pictures once more that could not be used before: their reason may have been the machine's.

        Returns:
            Pictures that cannot be used; the log says why.

        Raises:
            UnreadableFile: a picture cannot be read.
            BadInput: a restorer that cannot be told from others.
        """
        if "opaque" in self._reading.restorer.identity:
            got = self._reading.restorer.identity["opaque"]
            raise BadInput("a restorer that can be told from others", got, "Load the model without it.")
        sweep(self._folder)
        unusable = []
        for place, path in enumerate(paths):
            file = self._files[path] = self._folder / f"{content_of(path)[:32]}.safetensors"
            told = _read(file)
            if told is None or (again and _REASON in told):
                told = self._tensors(path)
                with whole_file(file) as temporary:
                    save_file(told, temporary)
            if _REASON in told:
                unusable.append(path)
                _log.warning("%s is left out: %s", path, bytes(told[_REASON].tolist()).decode())
            elif not self.noise_levels:
                self.noise_levels = tuple(told["noise_levels"].tolist())
            if watch is not None:
                watch(place + 1, len(paths))
        return unusable

    def _tensors(self, path: Path) -> dict[str, Tensor]:
        views = self._reading.views(load_image(path))
        if isinstance(views, str):
            return _told(views)
        if self._what == "features":
            seen = list(self._reading.see(views))
            reason = next((one.reason for one in seen if one.reason is not None), None)
            rows = {
                "maps": [one.maps for one in seen if one.maps is not None],
                "vectors": [one.vector for one in seen if one.vector is not None],
            }
            levels = seen[0].noise_levels
            found = {name: torch.stack(listed).half().cpu() for name, listed in rows.items() if listed}
        else:
            restored = [self._reading.restored([view.pixels]) for view in views]
            reason = next((one.reasons[0] for one in restored if one.reasons[0] is not None), None)
            levels = restored[0].noise_levels
            pictures = [torch.cat([one.given[:, None], one.images], dim=1) for one in restored]
            found = {"pictures": torch.cat(pictures).half().cpu()}
        if reason is not None:
            return _told(reason)
        return {name: value.contiguous() for name, value in found.items()} | {"noise_levels": torch.tensor(levels)}

    def read(self, paths: Sequence[Path], mirrored: Sequence[bool]) -> Kept:
        """A batch in fp32; of a mirrored picture its mirrored maps, with the vectors that it has anyway."""
        rows = [load_file(self._files[path]) for path in paths]

        def of(name: str) -> Tensor | None:
            if name not in rows[0]:
                return None
            turned = name != "vectors"
            listed = (row[name].flip(-1) if m and turned else row[name] for row, m in zip(rows, mirrored, strict=True))
            return torch.cat(list(listed)).float()

        counts = [len(next(value for name, value in row.items() if name != "noise_levels")) for row in rows]
        return Kept(counts, of("maps"), of("vectors"), of("pictures"))


def _read(file: Path) -> dict[str, Tensor] | None:
    """What is small in a file, ``None`` where it is missing; a damaged one counts as missing."""
    try:
        with safe_open(file, framework="pt") as found:
            small = {_REASON, "noise_levels"}.intersection(found.keys())
            told = {name: found.get_tensor(name) for name in small}
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        _log.warning("%s cannot be read and is made again: %s", file, error)
        return None
    return told or None


def _told(reason: str) -> dict[str, Tensor]:
    return {_REASON: torch.tensor(list(reason.encode()), dtype=torch.uint8)}
