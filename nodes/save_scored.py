"""Save Scored Image: PNG files that know their score, and a log of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ..core.export import png_text, to_csv, to_jsonl
from ..core.images import to_picture
from ..core.records import ScoreBatch
from ._common_inputs import images_input, prompts_input, scoring_inputs
from ._inputs import Stack, images_at_door, one, texts_at_door
from ._saving import append, comfyui_texts, expand, folder_and_stem, new_file, write_png
from ._scoring import scores_for, watch_in_comfyui
from ._show import result_ui, rgb
from ._sockets import CATEGORY, ScoresSocket


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
        saved = _save(stack, batch, one(filename_pattern, "filename_pattern"), one(log, "log"), cls.hidden)
        output = Path(folder_paths.get_output_directory())
        results = [ui.SavedResult(path.name, subfolder, io.FolderType.output) for path, subfolder in saved]
        files = [str(path) for path, _ in saved]
        relative = [str(path.relative_to(output)) for path, _ in saved]
        shown = {**result_ui(batch, None, hint), "images": results, "files": relative}
        return io.NodeOutput(files, batch, len(files), ui=shown)


def _save(stack: Stack, batch: ScoreBatch, pattern: str, form: str, hidden: Any) -> list[tuple[Path, str]]:
    """Save every image; returns (path, folder relative to the output folder), in the order of the batch."""
    ranks = {place: rank for rank, place in enumerate(batch.ranking(), 1)}
    watch = watch_in_comfyui(len(stack))
    texts = comfyui_texts(hidden)
    saved = []
    for place, image in enumerate(stack.channels_first()):
        stem = expand(pattern, batch[place], ranks[place])
        folder, name, number, subfolder = folder_and_stem(stem, image.shape[-1], image.shape[-2])
        alone = batch.take([place])
        with new_file(folder, name, number) as (temporary, final):
            write_png(temporary, to_picture(rgb(image)), texts | png_text(alone, 0))
        saved.append((final, subfolder))
        _log(folder, form, alone, final)
        watch(place + 1, len(stack))
    return saved


def _log(folder: Path, form: str, alone: ScoreBatch, file: Path) -> None:
    score = alone[0]
    named = replace(alone, scores=(replace(score, attributes={**score.attributes, "path": str(file)}),))
    if form == "csv":
        header, _, line = to_csv(named).partition("\n")
        append(folder / "latent_critic.csv", line, header + "\n")
    elif form == "jsonl":
        append(folder / "latent_critic.jsonl", to_jsonl(named))
