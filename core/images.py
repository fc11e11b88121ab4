"""Images at the door: tensors checked, files turned into tensors.

Inside core an image is float32 [3, H, W] RGB in [0, 1].
"""

from __future__ import annotations

import math
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import BadInput, UnreadableFile
from .memory import is_out_of_memory

if TYPE_CHECKING:
    from .methods.contract import Images

#: Decoders meet a damaged file in many ways: these are what fuzzing them brought up.
_DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, ArithmeticError, MemoryError, RuntimeError,
    AttributeError, AssertionError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_REMEDY = "Export the picture again, or leave it out."


def as_list(images: Images) -> list[torch.Tensor]:
    """Any accepted form of images → a list of float32 [3, H, W].

    Grey is repeated, alpha is dropped. Whether the pixels can be scored is :func:`reason_unscorable`'s question.

    Raises:
        BadInput: not tensors, no images, or a shape that is no image.
    """
    if isinstance(images, torch.Tensor) and images.ndim != 4:
        raise BadInput("images [N, 3, H, W]", f"shape {list(images.shape)}", "Add the batch dimension: images[None].")
    found = list(images)
    if not found:
        raise BadInput("at least one image", "none", "Check that the node or folder before this one gives images.")
    return [_as_rgb(image, place) for place, image in enumerate(found)]


def _as_rgb(image: torch.Tensor, place: int) -> torch.Tensor:
    if not isinstance(image, torch.Tensor) or image.ndim != 3 or image.shape[0] not in (1, 2, 3, 4):
        got = f"shape {list(image.shape)}" if isinstance(image, torch.Tensor) else type(image).__name__
        raise BadInput(
            "image tensors [3, H, W], channels first", f"{got} at place {place}", "Permute to channels first."
        )
    if min(image.shape[1:]) < 1:
        raise BadInput("an image with pixels", f"shape {list(image.shape)} at place {place}", "Drop the empty image.")
    image = image.detach().to(torch.float32)
    return image[:1].expand(3, -1, -1) if image.shape[0] <= 2 else image[:3]


def reason_unscorable(image: torch.Tensor, least: int = 8) -> str | None:
    """Why this image [3, H, W] cannot be scored, or ``None`` when it can.

    Values a little outside [0, 1] (a VAE's overshoot) are fine; scorers clamp them.
    """
    low, high = (float(end) for end in torch.aminmax(image))  # NaN goes on into both
    if not (math.isfinite(low) and math.isfinite(high)):
        return "the image holds NaN or infinite pixels (a broken VAE decode, often fp16: try a bf16 or fp32 VAE)"
    if low < -1.0 or high > 2.0:
        return f"pixel values run from {low:.3g} to {high:.3g}; expected 0 to 1"
    height, width = image.shape[-2:]
    if min(height, width) < least:
        return f"the image is {width}×{height} pixels; the shorter side must have at least {least}"
    return None


def finite_rows(rows: torch.Tensor) -> torch.Tensor:
    """[N] which of the rows [N, …] hold neither NaN nor infinity; an eighth of the time of asking every value."""
    flat = rows.flatten(1)
    # Either goes on into the sum; a sum may also leave the range by itself, and then every value is asked.
    whole = flat.sum(1).isfinite()
    return whole if bool(whole.all()) else flat.isfinite().all(1)


def load_image(path: str | Path) -> torch.Tensor:
    """A picture file → float32 [3, H, W] in [0, 1]: EXIF turned, alpha laid on white, 16-bit grey kept, CMYK converted.

    Of an animation the first frame is read. 16-bit colour is read at 8 bits (Pillow has no such mode).

    Raises:
        UnreadableFile: missing, truncated, too large to be a real picture, or no picture.
    """
    with _readable(path) as picture:
        return _pixels(picture)


def from_picture(picture: Image.Image) -> torch.Tensor:
    """A picture in memory → float32 [3, H, W] in [0, 1], read as :func:`load_image` reads a file.

    Raises:
        UnreadableFile: Pillow reads pixels when they are asked for, and these are truncated, damaged or closed.
    """
    try:
        return _pixels(picture)
    except _DAMAGE as error:
        raise UnreadableFile("a readable picture", _told(error), _REMEDY) from error


def _pixels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(_to_array(ImageOps.exif_transpose(picture)))


def picture_size(path: str | Path) -> tuple[int, int]:
    """Width and height by the file's header, before any EXIF turn; no pixel is decoded.

    Raises:
        UnreadableFile: missing, or no picture.
    """
    with _readable(path) as picture:
        return picture.size


def png_texts(path: str | Path) -> dict[str, str]:
    """The texts that a PNG file carries before its pixels, by keyword; none for other formats.

    Raises:
        UnreadableFile: as :func:`picture_size`.
    """
    with _readable(path) as picture:
        return {str(key): value for key, value in picture.info.items() if isinstance(value, str)}


def thumbnail(path: str | Path, side: int) -> Image.Image:
    """A picture file → RGB of at most side × side pixels, decoded at reduced size where the format can.

    Raises:
        UnreadableFile: as :func:`load_image`.
    """
    with _readable(path) as picture:
        picture.draft("RGB", (2 * side, 2 * side))
        small = ImageOps.exif_transpose(picture)
        if small.mode.startswith(("I", "F")):
            return to_picture(torch.from_numpy(_to_array(small)), side)
        small = _flat(small)
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        return small


def to_picture(image: torch.Tensor, side: int | None = None) -> Image.Image:
    """An image tensor [3, H, W] → 8-bit RGB, shrunk to at most side × side. NaN becomes black."""
    array = torch.nan_to_num(image.detach().float().cpu()).clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)
    picture = Image.fromarray(array.permute(1, 2, 0).contiguous().numpy())
    if side is not None:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


@contextmanager
def _readable(path: str | Path) -> Iterator[Image.Image]:
    path = Path(path)
    _check_regular(path)
    try:
        with Image.open(path) as picture:
            yield picture
    except _DAMAGE as error:
        raise _unreadable(path, _plain(path, error)) from error


def _check_regular(path: Path) -> None:
    """Opening a pipe would wait for ever; a link that leads to itself, or a folder that is locked, cannot be seen."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise _unreadable(path, "no such file") from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from error
    if stat.S_ISDIR(mode):
        raise _unreadable(path, "a folder" if os.access(path, os.R_OK | os.X_OK) else "a folder that may not be read")
    if not stat.S_ISREG(mode):
        raise _unreadable(path, "a pipe or device, not a file")


def _plain(path: Path, error: Exception) -> str:
    if not path.exists():
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "an empty file" if path.stat().st_size == 0 else "a file of no picture format that can be read"
    return _told(error)


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"out of memory: {error}" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"


def _unreadable(path: Path, got: str) -> UnreadableFile:
    return UnreadableFile(f"a readable picture at {path.name}", got, _REMEDY)


def _to_array(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith(("I", "F")):
        grey = np.asarray(picture).astype(np.float32)
        # 16- and 32-bit grey say nothing of their white; 16 bit is what cameras, scanners and masks write.
        grey = grey / 65535.0 if picture.mode != "F" or grey.max(initial=0.0) > 1.0 else grey
        return np.ascontiguousarray(np.broadcast_to(grey.clip(0.0, 1.0), (3, *grey.shape)))
    planes = np.ascontiguousarray(np.asarray(_flat(picture)).transpose(2, 0, 1))
    rgb = planes.astype(np.float32)
    rgb /= 255.0
    return rgb


def _flat(picture: Image.Image) -> Image.Image:
    if "A" in picture.getbands() or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")
