"""Contact sheets as files: marked as ours, so that a sheet never replaces a picture of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadInput

if TYPE_CHECKING:
    from PIL import Image

#: The PNG text by which a sheet of ours is known.
SHEET_KEY = "latent_critic_sheet"


def check_sheet(target: Path) -> None:
    """Refuse a place where no sheet can or may go, before hours of scoring.

    Raises:
        BadInput: not the name of a PNG file, a file where its folder should be, or an existing file that is no sheet.
    """
    if target.suffix.lower() != ".png" or target.is_dir():
        raise BadInput("a file name for the contact sheet that ends in .png", str(target), "Name a PNG file.")
    blocked = next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None)
    if blocked is not None:
        raise BadInput(f"a folder for {target.name}", f"the file {blocked}", "Name another folder.")
    if target.exists() and not is_sheet(target):
        raise BadInput(
            "a new file name for the contact sheet, or an earlier sheet",
            f"{target}, which is another file",
            "Nothing was overwritten. Name the sheet first, then the pictures.",
        )


def is_sheet(path: Path) -> bool:
    """Whether a file is a contact sheet that :func:`save_sheet` wrote."""
    from ..errors import UnreadableFile
    from ..images import png_texts

    try:
        return SHEET_KEY in png_texts(path)
    except UnreadableFile:
        return False


def save_sheet(sheet: Image.Image, target: Path) -> None:
    """Write a sheet with its mark, whole or not at all."""
    from PIL.PngImagePlugin import PngInfo

    from ..files import whole_file

    texts = PngInfo()
    texts.add_text(SHEET_KEY, "1")
    with whole_file(target) as temporary:
        sheet.save(temporary, "PNG", pnginfo=texts, optimize=True)
