"""The built-in judge as nodes use it: its small network under ComfyUI's memory management."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths

from ..core.hosts.comfyui.own_nets import ACTIVATIONS, layer_ops, place
from ..core.methods.judge import SHIPPED, Judge
from ..core.nets.judge_file import digest, read
from ..core.nets.views import SIDE

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.heatmap import HeatMap
    from ..core.methods.contract import Images, Watch
    from ..core.records import ScoreBatch, ScoreSpec

#: The choice that means the weights of this pack.
BUILT_IN = "built in"
_FOLDER = "quality_judges"


class PlacedJudge:
    """A judge; ComfyUI loads its network for each call and may unload it between calls."""

    def __init__(self, path: Path = SHIPPED, views: str = "full") -> None:
        network, facts = read(path, layer_ops())
        self._placed = place(network)
        self._judge = Judge(network, facts, digest(path), device=self._placed.device, policy=views)

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean."""
        return self._judge.spec

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """Score every image, in order."""
        pixels = self._judge.views * 3 * SIDE * SIDE
        self._judge.device = self._placed.load(memory_required=ACTIVATIONS * pixels * 4)
        return self._judge.score(images, prompts, watch=watch)

    def heat_map(self, image: Tensor, *, watch: Watch | None = None) -> HeatMap:
        """What each place of one image adds to its score."""
        one_view = 2 * ACTIVATIONS * 3 * SIDE * SIDE * 4  # up to 512 px long
        self._judge.device = self._placed.load(memory_required=one_view)
        return self._judge.heat_map(image, watch=watch)


def builtin_judge() -> PlacedJudge:
    """A judge with the shipped weights."""
    return PlacedJudge()


def judge_choices() -> list[str]:
    """The built-in weights, and the files that the user trained and put into models/quality_judges."""
    folder_paths.add_model_folder_path(_FOLDER, str(Path(folder_paths.models_dir, _FOLDER)))
    names = folder_paths.get_filename_list(_FOLDER)
    return [BUILT_IN, *(name for name in names if name.endswith(".safetensors"))]


def judge_file(choice: str) -> Path:
    """The file behind a choice.

    Raises:
        FileNotFoundError: it is gone.
    """
    return SHIPPED if choice == BUILT_IN else Path(folder_paths.get_full_path_or_raise(_FOLDER, choice))
