"""Fit Head: make the loaded model a judge of images like yours, with or without ratings."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, ClassVar

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..core.errors import BadInput, LatentCriticError
from ..core.fitting.cost import cost_of, sizes_of
from ..core.fitting.ladder_steps import LadderOptions
from ..core.fitting.ladders import UnratedFit, fit_unrated
from ..core.fitting.pictures import Pictures
from ..core.fitting.rated import RatedFit, Watch, fit_rated
from ..core.fitting.report import to_text
from ..core.heads.fit import FitOptions
from ..core.heads.head_file import save_head
from ..core.methods.feature_cache import FeatureCache
from ..core.methods.hyperfeatures import Hyperfeatures
from ..core.methods.lgdm import NAME
from ._fit_options import hyperfeature_options, picture_inputs, reading_inputs
from ._heads import heads_folder, loaded_backbone, placed_psi, refuse_other_head
from ._inputs import images_at_door, one
from ._judge import builtin_judge
from ._loaded import EVERY_FAMILY
from ._sockets import CATEGORY_SCORERS, HeadSocket
from .fit_probe_head import checked_name
from .load_folder import stamp

_log = logging.getLogger(__name__)


class FitHead(io.ComfyNode):
    """MODEL, CLIP, VAE and images, maybe ratings → LC_HEAD."""

    #: Heads that ComfyUI's cache may still hold, which lives as long, and how often the file was gone since.
    _written: ClassVar[dict[Path, int]] = {}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticFitHead",
            display_name="Fit Head",
            category=CATEGORY_SCORERS,
            description="Makes the loaded model a judge of images like these, and saves the head in models/"
            "quality_heads. With your ratings the scores are 0 to 100 in your taste, and the report says how well new "
            "images are told. Without ratings it learns from the images damaged step by step: it then ranks by "
            "technical quality, and claims nothing about people. Minutes on a GPU, hours on a CPU with a full-size "
            "model; a run that was stopped goes on where it was.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip=f"The diffusion model: {EVERY_FAMILY}, or the embedded one."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                *picture_inputs(),
                *reading_inputs(),
            ],
            outputs=[
                HeadSocket.Output("fitted", "head", "The head, for LGDM Scorer (PMG) with the same model."),
                io.String.Output("report", "report", "What it cost, and how well held-out images were told."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, name: Any = None, ratings_file: Any = None, **_: Any) -> str:
        """Changes when the ratings file or one of its pictures is written, and when the head's file is gone."""
        title, file = (str(one(values, "names") or "").strip() for values in (name, ratings_file))
        path = heads_folder() / f"{title}.safetensors"
        if path in cls._written and not path.exists():
            cls._written[path] += 1
        return f"{_stamps(file)} {cls._written.get(path, 0)}"

    @classmethod
    def execute(
        cls,
        model: list[Any],
        clip: list[Any],
        vae: list[Any],
        name: list[str],
        ratings: list[str],
        ratings_file: list[str],
        read: list[str],
        levels: list[int],
        guidance: list[str],
        psi: list[str],
        size: list[int],
        head: list[str],
        images: list[Any] | None = None,
    ) -> io.NodeOutput:
        """Compute features, fit, save."""
        title = checked_name(one(name, "name"))
        pictures = _pictures(images, "\n".join(map(str, ratings)), one(ratings_file, "ratings_file").strip(), title)
        options = hyperfeature_options(
            one(read, "read"), one(levels, "levels"), one(guidance, "guidance"), one(psi, "psi"), one(size, "size")
        )
        backbone = loaded_backbone(one(model, "model"), one(clip, "clip"), one(vae, "vae"))
        features = Hyperfeatures(backbone, options, placed_psi(options, backbone))
        path = heads_folder() / f"{title}.safetensors"
        refuse_other_head(path, NAME, options.kind, backbone)
        fit, cost = _fit(features, pictures, FitOptions(one(head, "head")))
        save_head(path, fit.head)
        cls._written.setdefault(path, 0)
        left_out = [f"left out: {place}: {reason}" for place, reason in fit.left_out.items()]
        text = "\n".join([cost, to_text(fit), *left_out, f"Saved as {path.name}."])
        return io.NodeOutput(fit.head, text, ui={"text": [text]})


def _stamps(file: str) -> str:
    """The ratings file and its pictures by time and size; empty without a file."""
    if not file:
        return ""
    table = Path(folder_paths.get_input_directory(), file)
    try:
        sources = Pictures.of_csv(table).sources
    except LatentCriticError as error:
        return f"{stamp(table)} {error}"
    seen = [stamp(path) for path in (table, *sources) if isinstance(path, Path)]
    return hashlib.sha256(repr(seen).encode()).hexdigest()


def _pictures(images: list[Any] | None, ratings: str, file: str, title: str) -> Pictures:
    if bool(file) == (images is not None):
        raise BadInput("images or a ratings file", "both" if file else "neither", "Connect images, or name a file.")
    if file:
        if ratings.strip():
            raise BadInput("ratings in one place", "ratings and a ratings file", "Empty one of them.")
        return Pictures.of_csv(Path(folder_paths.get_input_directory(), file))
    singles = images_at_door(images or []).channels_first()
    return Pictures.of_tensors(f"{title} (images in ComfyUI)", singles, _numbers(ratings))


def _numbers(text: str) -> list[float] | None:
    """Numbers parted by spaces, commas, semicolons or lines; ``None`` for no text."""
    words = text.replace(",", " ").replace(";", " ").split()
    try:
        return [float(word) for word in words] or None
    except ValueError as error:
        raise BadInput("numbers as ratings", str(error), "Write for example: 80, 35.5, 62") from error


def _fit(features: Hyperfeatures, pictures: Pictures, options: FitOptions) -> tuple[RatedFit | UnratedFit, str]:
    ladders = LadderOptions()
    forms = ladders.per_ladders() if pictures.ratings is None else 1
    cost = cost_of(features, [size for size in sizes_of(pictures.sources) for _ in range(forms)])
    text = f"cost: {cost.to_text()}"
    _log.info("Fit Head, %s", text)  # before the work starts: it may take hours
    cache = FeatureCache.of(Path(folder_paths.get_user_directory(), "latent_critic", "features"), features)
    watch = _watch(len(pictures))
    if pictures.ratings is None:
        found = fit_unrated(features, pictures, options=ladders, judge=builtin_judge(), cache=cache, watch=watch)
        return found, text
    return fit_rated(features, pictures, options=options, cache=cache, watch=watch), text


def _watch(total: int) -> Watch:
    """The node's progress bar, which also stops at ComfyUI's Cancel."""
    bar = comfy.utils.ProgressBar(total)

    def watch(what: str, done: int, steps: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if what == "features":
            bar.update_absolute(done, steps)

    return watch
