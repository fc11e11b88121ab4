"""Pixel-space restorers as nodes use them: their folder, ComfyUI's memory management, and a cache on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths

from ..core.hosts.comfyui.own_nets import ACTIVATIONS, place
from ..core.methods.diff_v2_iqa_make import SHIPPED_RESTORER
from ..core.restoration.cache import CachedRestorer, RestorationCache
from ..core.restoration.sr3 import Sr3Options, Sr3Restorer, usual_options
from ..core.restoration.weights import load_restorer

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.restoration.contract import Restored, Restorer, Watch

FOLDER = "quality_restorers"
#: The choice that means the package's own, and the one while there is none at all.
BUILT_IN, NONE = "built in", "no restorer in models/quality_restorers"


class PlacedRestorer:
    """A pixel-space restorer; ComfyUI loads its network for each call and may unload it between calls."""

    name = Sr3Restorer.name

    def __init__(self, path: Path, options: Sr3Options | None = None) -> None:
        network, facts = load_restorer(path)
        self._restorer = Sr3Restorer(network, options or usual_options(facts))
        self._placed = place(network)

    @property
    def identity(self) -> Mapping[str, str]:
        """The restorer's own."""
        return self._restorer.identity

    def restore(self, images: Tensor, *, watch: Watch | None = None) -> Restored:
        """See :meth:`~..core.restoration.contract.Restorer.restore`."""
        side = self._restorer.options.tile
        pixels = images.shape[0] * min(side, images.shape[-2]) * min(side, images.shape[-1])
        self._placed.load(memory_required=ACTIVATIONS * pixels * 3 * 4)
        return self._restorer.restore(images, watch=watch)


def restorer_choices() -> list[str]:
    """The package's own restorer, and the files in models/quality_restorers."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir, FOLDER)))
    names = [name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(".safetensors")]
    return [*([BUILT_IN] if SHIPPED_RESTORER.is_file() else []), *names] or [NONE]


def restorer_path(choice: str) -> Path | None:
    """The file behind a choice; ``None`` for the package's own.

    Raises:
        FileNotFoundError: it is gone.
    """
    if choice in (BUILT_IN, NONE):
        return None
    restorer_choices()
    return Path(folder_paths.get_full_path_or_raise(FOLDER, choice))


def cached(restorer: Restorer) -> Restorer:
    """The same restorer, its restorations kept in ComfyUI's user folder."""
    folder = Path(folder_paths.get_user_directory()) / "latent_critic" / "restorations"
    return CachedRestorer(restorer, RestorationCache(folder), needed=False)
