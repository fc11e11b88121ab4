"""Load Images From Folder: pictures of any sizes as a list, in a stable order, past the broken ones."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..core.errors import BadInput, UnreadableFile
from ..core.image_files import find_images, stream_images
from ._sockets import CATEGORY


class LoadImagesFromFolder(io.ComfyNode):
    """A folder → a list of images and their names."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticLoadFolder",
            display_name="Load Images From Folder",
            category=CATEGORY,
            description="Reads the pictures of a folder as a list, so they may differ in size. Files come in natural "
            "order (2 before 10); a broken file is left out and named, the others still come.",
            inputs=[
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="A folder inside ComfyUI's input folder (empty: the input folder itself), or a full path. "
                    "Searched with its subfolders.",
                ),
                io.Int.Input("start", default=0, min=0, max=10_000_000, tooltip="How many files to leave out first."),
                io.Int.Input(
                    "limit",
                    default=100,
                    min=1,
                    max=100_000,
                    tooltip="How many files to read at most. All of them are held in memory: 100 pictures of "
                    "1024 × 1024 take 1.2 GB. For more, use the latent-critic command line, which streams.",
                ),
            ],
            outputs=[
                io.Image.Output("images", "images", "The pictures, a list.", is_output_list=True),
                io.String.Output("names", "names", "Their file names, in the same order.", is_output_list=True),
                io.Int.Output("count", "count", "How many pictures were read."),
                io.String.Output("unreadable", "unreadable", "Files that could not be read, one a line, and why."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, start: int | None = None, limit: int | None = None) -> str:
        """Changes when a file is added, removed or written; linked inputs come as ``None`` and stay as they are."""
        if folder is None:
            return "linked"
        try:
            files = find_images([_resolve(folder)])
        except (BadInput, UnreadableFile) as error:
            return str(error)
        return hashlib.sha256(repr([stamp(file) for file in files]).encode()).hexdigest()

    @classmethod
    def execute(cls, folder: str, start: int, limit: int) -> io.NodeOutput:
        """Read the files."""
        base = _resolve(folder)
        files = find_images([base])
        chosen = files[start : start + limit]
        if not chosen:
            raise BadInput(f"a start below {len(files)}", str(start), f"{base} holds {len(files)} pictures.")
        images, names, broken = _read(chosen, base)
        if not images:
            raise UnreadableFile(f"a readable picture in {base}", "; ".join(broken[:3]), "Check the files.")
        note = "\n".join(broken)
        return io.NodeOutput(images, names, len(images), note, ui={"text": [note or f"{len(images)} pictures read"]})


def _resolve(folder: str) -> Path:
    """An absolute folder as it is, any other inside ComfyUI's input folder.

    Raises:
        BadInput: no path at all.
    """
    if "\0" in folder:
        raise BadInput("the path of a folder", repr(folder), "Take the NUL character out of it.")
    try:
        given = Path(folder.strip()).expanduser()
    except RuntimeError as error:
        raise BadInput("the path of a folder", repr(folder), f"{error}: write the full path.") from error
    return Path(folder_paths.get_input_directory(), given)


def stamp(file: Path) -> tuple[str, int, int]:
    """Path, time of writing and size; zeros for a file that is gone or a link to nowhere, which is named when read."""
    try:
        stat = file.stat()
    except OSError:
        return str(file), 0, 0
    return str(file), stat.st_mtime_ns, stat.st_size


def _read(files: list[Path], base: Path) -> tuple[list[Any], list[str], list[str]]:
    bar = comfy.utils.ProgressBar(len(files))
    images, names, broken = [], [], []
    for loaded in stream_images(files):
        comfy.model_management.throw_exception_if_processing_interrupted()
        name = str(loaded.path.relative_to(base)) if loaded.path.is_relative_to(base) else loaded.path.name
        if loaded.image is None:
            broken.append(f"{name}: {loaded.reason}")
        else:
            images.append(loaded.image.movedim(0, -1)[None].contiguous())
            names.append(name)
        bar.update(1)
    return images, names, broken
