"""Hyperfeatures kept on disk, so that a fit that was stopped goes on and an ablation computes nothing twice."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..files import whole_file
from ..images import as_list
from .hyperfeatures import Extracted, Hyperfeatures

if TYPE_CHECKING:
    from torch import Tensor

    from .contract import Images, Watch

_log = logging.getLogger(__name__)
#: To be raised whenever views, guidance or pooling come to compute other values from the same settings.
_VERSION = 1


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """One file per picture, whole or absent, under a folder per backbone and settings.

    The key of a picture is the hash of its pixels; that of the folder is of everything else that changes a value: the
    settings, the model's fingerprint and the host's words on patches, text encoder and VAE. A damaged file counts as
    absent. Where the host says that part of a model's set-up cannot be read (``opaque`` in its identity), two models
    may share a key, so that nothing is read or kept.

    Attributes:
        folder: The folder of these very features; see :meth:`of`.
        size: Features of a picture.
        sound: Whether the key tells all.
    """

    folder: Path
    size: int
    sound: bool = True

    @classmethod
    def of(cls, root: str | Path, features: Hyperfeatures) -> FeatureCache:
        """The cache below ``root`` for these hyperfeatures."""
        settings, identity = features.settings(), dict(features.backbone.identity)
        known: Mapping[str, Any] = {
            "version": _VERSION,
            "settings": settings,
            "layout": features.layout.to_list(),
            "fingerprint": features.backbone.fingerprint.to_text(),
            "identity": identity,
        }
        tag = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:24]
        if "opaque" in identity:
            _log.info("No features are kept on disk: %s cannot be told apart.", identity["opaque"])
        return cls(Path(root) / tag, features.layout.size, "opaque" not in identity)

    def path(self, image: Tensor) -> Path:
        """Where the features of a picture [3, H, W] lie."""
        pixels = image.contiguous().cpu().numpy()
        found = hashlib.sha256(repr(pixels.shape).encode())
        found.update(pixels.tobytes())
        name = found.hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.safetensors"

    def read(self, path: Path) -> Tensor | None:
        """Features [D] of the picture whose :meth:`path` this is, or ``None``."""
        try:
            found = load_file(path)["features"]
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError) as error:
            _log.warning("%s cannot be read and is computed again: %s", path, error)
            return None
        return found if tuple(found.shape) == (self.size,) else None

    def write(self, path: Path, features: Tensor) -> None:
        """Keep the features [D] of the picture whose :meth:`path` this is.

        Raises:
            UnwritableFile: the disk is full, or the folder takes no files.
        """
        with whole_file(path) as temporary:
            save_file({"features": features.contiguous()}, temporary)


def extract_cached(
    features: Hyperfeatures, images: Images, cache: FeatureCache | None, *, watch: Watch | None = None
) -> list[Extracted]:
    """As :meth:`Hyperfeatures.extract`, taking from the cache what is there and keeping what is not.

    Features that tiles made an approximation are not kept.
    """
    found = as_list(images)
    if cache is None or not cache.sound:
        return features.extract(found, watch=watch)
    paths = [cache.path(image) for image in found]
    kept = [cache.read(path) for path in paths]
    missing = [place for place, one in enumerate(kept) if one is None]
    made = features.extract([found[place] for place in missing], watch=watch) if missing else []
    new = dict(zip(missing, made, strict=True))
    for place, one in new.items():
        if one.features is not None and "tile" not in one.attributes:
            cache.write(paths[place], one.features)
    return [new[place] if one is None else Extracted(one) for place, one in enumerate(kept)]
