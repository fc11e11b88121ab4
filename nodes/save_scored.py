"""Save Scored Image: PNG files that know their score, and a log of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ..core.errors import UnwritableFile
from ..core.export import png_text, to_csv, to_jsonl
from ..core.images import to_picture
from ..core.records import Score, ScoreBatch
from ._common_inputs import images_input, prompts_input, scoring_inputs
from ._inputs import Stack, images_at_door, one, texts_at_door
from ._saving import append, comfyui_texts, expand, folder_and_stem, new_file, write_png
from ._scoring import scores_for, watch_in_comfyui
from ._show import result_ui, rgb
from ._sockets import CATEGORY, ScoresSocket

logger = logging.getLogger(__name__)


class SaveScoredImage(io.ComfyNode):
    """Images and scores → files."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticSaveScored",
            display_name="Save Scored Image",
            category=CATEGORY,
            description="Saves PNG files with the score and what it means in the file's text, beside ComfyUI's own "
            "workflow. Never overwrites a file; keeps a log of scores where you want one.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                images_input(),
                *scoring_inputs(),
                prompts_input(),
                io.String.Input(
                    "filename_pattern",
                    default="LatentCritic/%score%",
                    tooltip="Folder and start of the file name inside ComfyUI's output folder. %score%, %rank%, "
                    "%index%, %seed%, %name%, and ComfyUI's %width%, %height%, %year%, %month%, %day%, %hour%, "
                    "%minute%, %second% are filled in; a number follows.",
                ),
                io.Combo.Input(
                    "log",
                    options=["none", "csv", "jsonl"],
                    default="csv",
                    tooltip="Add a line per image to latent_critic.csv or latent_critic.jsonl in the same folder.",
                ),
            ],
            outputs=[
                io.String.Output("files", "files", "The paths of the saved files, in the order of the batch.", True),
                ScoresSocket.Output("saved_scores", "scores", "The scores of the images, in the order of the batch."),
                io.Int.Output("saved_count", "saved count", "How many files were saved."),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: list[Any],
        filename_pattern: list[str],
        log: list[str],
        scorer: list[Any] | None = None,
        scores: list[Any] | None = None,
        prompts: list[Any] | None = None,
    ) -> io.NodeOutput:
        """Score where needed, and save."""
        stack = images_at_door(images)
        batch, hint = scores_for(stack, scorer, scores, texts_at_door(prompts, len(stack)))
        saved, notes = _save(stack, batch, one(filename_pattern, "filename_pattern"), one(log, "log"), cls.hidden)
        output = Path(folder_paths.get_output_directory())
        results = [ui.SavedResult(path.name, subfolder, io.FolderType.output) for path, subfolder in saved]
        files = [str(path) for path, _ in saved]
        relative = [str(path.relative_to(output)) for path, _ in saved]
        said = "\n".join([*([hint] if hint else []), *notes])
        shown = {**result_ui(batch, None, said), "images": results, "files": relative}
        none = [ExecutionBlocker(f"No image was saved. {' '.join(notes)}")]
        return io.NodeOutput(files or none, batch, len(files), ui=shown)


def _save(
    stack: Stack, batch: ScoreBatch, pattern: str, form: str, hidden: Any
) -> tuple[list[tuple[Path, str]], list[str]]:
    """Save every image, then the log; returns (path, folder relative to the output folder) and notes for the user.

    An image with NaN or infinite pixels is left out: a file would show it black. A log that cannot be written is a
    note, not an error, for the pictures are safe by then; it is also tried when a picture fails or the user cancels.

    Raises:
        UnwritableFile: a picture cannot be written.
    """
    ranks = {place: rank for rank, place in enumerate(batch.ranking(), 1)}
    watch = watch_in_comfyui(len(stack))
    texts = comfyui_texts(hidden)
    saved: list[tuple[Path, str]] = []
    notes: list[str] = []
    logs: dict[Path, list[Score]] = {}
    try:
        for place, image in enumerate(stack.channels_first()):
            score = batch[place]
            stem = expand(pattern, score, ranks[place], batch.spec.scale)
            folder, name, number, subfolder = folder_and_stem(stem, image.shape[-1], image.shape[-2])
            if bool(torch.isfinite(image).all()):
                with new_file(folder, name, number) as (temporary, final):
                    write_png(temporary, to_picture(rgb(image)), texts | png_text(batch, place))
                saved.append((final, subfolder))
                score = replace(score, attributes={**score.attributes, "path": str(final)})
            else:
                notes.append(f"Image {score.index} was not saved: it holds NaN or infinite pixels.")
            logs.setdefault(folder, []).append(score)
            watch(place + 1, len(stack))
    finally:
        notes += _log(replace(batch, scores=()), form, logs)
    return saved, notes


def _log(batch: ScoreBatch, form: str, logs: Mapping[Path, Sequence[Score]]) -> list[str]:
    """Add these scores to the log of each folder; returns what went wrong, for the user."""
    notes = []
    for folder, scores in logs.items():
        found = replace(batch, scores=tuple(scores))
        try:
            if form == "csv":
                header, _, lines = to_csv(found).partition("\n")
                append(folder / "latent_critic.csv", lines, header + "\n")
            elif form == "jsonl":
                append(folder / "latent_critic.jsonl", to_jsonl(found))
        except UnwritableFile as error:
            notes.append(f"The pictures are saved, but the log in {folder} is not: {error}")
            logger.warning(notes[-1])
    return notes
