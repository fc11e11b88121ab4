"""Many pictures on one, ranked and labelled, readable at a glance. Pillow only; no font file is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont

from .errors import BadInput

#: The largest sheet, in pixels: about what Pillow opens without warning.
MOST_PIXELS = 89_000_000
#: The smallest cell that :func:`fitting_cell` shrinks to, in pixels: below it, no caption can be read.
LEAST_CELL = 48

_BACK, _CELL, _TEXT, _FAINT = (18, 20, 24), (31, 34, 41), (236, 238, 241), (150, 156, 166)
# Worst to best; the ends differ in lightness too, for readers who do not tell red from green.
_RAMP = ((200, 62, 58), (228, 133, 56), (233, 198, 84), (140, 200, 106), (74, 196, 150))


@dataclass(frozen=True, slots=True)
class Mark:
    """What is drawn on a picture beside its caption.

    Attributes:
        fraction: 0 (worst) to 1 (best): length and colour of the bar. ``None`` draws no bar.
        badge: A short text on the picture's corner, such as a rank.
        crossed: The picture has no score: it is dimmed, and its caption is the reason.
    """

    fraction: float | None = None
    badge: str = ""
    crossed: bool = False


@dataclass(frozen=True, slots=True)
class Titles:
    """Texts around the grid: a heading, a line below it, one for each column (above) and each row (above its cells)."""

    heading: str = ""
    note: str = ""
    columns: Sequence[str] = field(default_factory=tuple)
    rows: Sequence[str] = field(default_factory=tuple)


def contact_sheet(
    images: Sequence[Image.Image | None],
    captions: Sequence[str],
    columns: int | None = None,
    cell: int = 256,
    *,
    cell_height: int | None = None,
    marks: Sequence[Mark] | None = None,
    titles: Titles | None = None,
) -> Image.Image:
    """Lay pictures out in rows, in the order given.

    Args:
        images: Pictures of any mode and size; ``None`` leaves a placeholder.
        captions: One text a picture; further lines are smaller. Long lines are shortened in the middle.
        columns: Pictures in a row; ``None`` makes the sheet a little wider than high.
        cell: Room for each picture, in pixels: its width, and its height too unless ``cell_height`` is given.
        cell_height: Height of that room, for pictures that are all wider than high.
        marks: Bar and badge of each picture.
        titles: Texts around the grid.

    Raises:
        BadInput: no pictures, unequal lengths, or a sheet of more than :data:`MOST_PIXELS`.
    """
    marks = [Mark()] * len(images) if marks is None else marks
    _check(images, captions, marks, columns, min(cell, cell_height or cell))
    titles = titles or Titles()
    plan = _Plan.of(captions, columns, (cell, cell_height or cell), titles)
    if plan.width * plan.height > MOST_PIXELS:
        raise BadInput(
            f"a sheet of at most {MOST_PIXELS:,} pixels", f"{plan.width}×{plan.height}", "Use smaller cells or fewer."
        )
    sheet = Image.new("RGB", (plan.width, plan.height), _BACK)
    draw = ImageDraw.Draw(sheet)
    _draw_titles(draw, plan, titles)
    for place, (picture, caption, mark) in enumerate(zip(images, captions, marks, strict=True)):
        _draw_cell(sheet, draw, plan, plan.corner(place), picture, caption, mark)
    return sheet


def fitting_cell(count: int, cell: int, columns: int | None = None, lines: int = 2) -> int:
    """The largest cell up to ``cell`` with which a sheet of so many pictures stays within :data:`MOST_PIXELS`.

    Args:
        count: Pictures on the sheet, ≥ 1.
        cell: The side that is wanted, in pixels.
        columns: As for :func:`contact_sheet`.
        lines: Most lines of a caption.

    Raises:
        BadInput: too many pictures for cells of :data:`LEAST_CELL` pixels.
    """
    captions = ["\n" * (lines - 1)] * count
    for side in range(cell, min(cell, LEAST_CELL) - 1, -1):
        plan = _Plan.of(captions, columns, (side, side), Titles())
        if plan.width * plan.height <= MOST_PIXELS:
            return side
    raise BadInput(
        f"few enough pictures for a sheet of {MOST_PIXELS:,} pixels", str(count), "Put fewer on one contact sheet."
    )


def best_and_worst(ranking: Sequence[int], most: int) -> tuple[list[int], str]:
    """The places to show of a ranking (its best and worst, at most ``most``), and a note when some are left out."""
    if len(ranking) <= most:
        return list(ranking), ""
    best = math.ceil(most / 2)
    worst = most - best
    shown = [*ranking[:best], *ranking[len(ranking) - worst :]]
    return (
        shown,
        f"The best {best} and the worst {worst} of {len(ranking)}; {len(ranking) - most} between are not shown.",
    )


def colour(fraction: float) -> tuple[int, int, int]:
    """The colour of a score from 0 (worst) to 1 (best)."""
    at = min(1.0, max(0.0, fraction)) * (len(_RAMP) - 1)
    low = min(int(at), len(_RAMP) - 2)
    red, green, blue = (round(a + (b - a) * (at - low)) for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True))
    return red, green, blue


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where everything goes, in pixels."""

    columns: int
    rows: int
    cell: int
    tall: int
    pad: int
    large: int
    small: int
    lines: int
    head: int
    row_title: int

    @classmethod
    def of(cls, captions: Sequence[str], columns: int | None, room: tuple[int, int], titles: Titles) -> _Plan:
        count, cell = len(captions), room[0]
        columns = min(count, columns or max(1, math.ceil(math.sqrt(count * 1.4))))
        pad, large = max(3, cell // 24), max(13, cell // 12)
        small = max(11, round(large * 0.78))
        head = pad
        head += 2 * large + pad if titles.heading else 0
        head += (small + pad) if titles.note else 0
        head += (large + 2 * pad) if titles.columns else 0
        return cls(
            columns=columns,
            rows=math.ceil(count / columns),
            cell=cell,
            tall=room[1],
            pad=pad,
            large=large,
            small=small,
            lines=max(caption.count("\n") for caption in captions),
            head=head,
            row_title=large + 2 * pad if titles.rows else 0,
        )

    @property
    def step(self) -> tuple[int, int]:
        text = self.pad + round(self.large * 1.25) + self.lines * round(self.small * 1.3)
        return self.cell + 2 * self.pad, self.row_title + self.tall + text + 3 * self.pad

    @property
    def width(self) -> int:
        return self.columns * self.step[0] + self.pad

    @property
    def height(self) -> int:
        return self.head + self.rows * self.step[1] + self.pad

    def corner(self, place: int) -> tuple[int, int]:
        row, column = divmod(place, self.columns)
        return self.pad + column * self.step[0], self.head + row * self.step[1] + self.row_title


def _check(
    images: Sequence[Image.Image | None],
    captions: Sequence[str],
    marks: Sequence[Mark],
    columns: int | None,
    cell: int,
) -> None:
    if not images:
        raise BadInput("at least one picture for a contact sheet", "none", "Check what was selected.")
    if not len(images) == len(captions) == len(marks):
        got = f"{len(images)} pictures, {len(captions)} captions, {len(marks)} marks"
        raise BadInput("as many captions and marks as pictures", got, "Give one each.")
    if cell < 16 or (columns is not None and columns < 1):
        raise BadInput("cells of at least 16 pixels and at least one column", f"{cell}, {columns}", "Raise them.")


def _draw_titles(draw: ImageDraw.ImageDraw, plan: _Plan, titles: Titles) -> None:
    left, top, room = 2 * plan.pad, plan.pad, plan.width - 4 * plan.pad
    if titles.heading:
        font = _font(round(plan.large * 1.6))
        draw.text((left, top), _shortened(titles.heading, font, room), _TEXT, font)
        top += 2 * plan.large + plan.pad
    if titles.note:
        font = _font(plan.small)
        draw.text((left, top), _shortened(titles.note, font, room), _FAINT, font)
    font = _font(plan.large)
    for column, text in enumerate(titles.columns[: plan.columns]):
        x = plan.corner(column)[0] + plan.pad + plan.cell // 2
        draw.text((x, plan.head - plan.pad), _shortened(text, font, plan.cell), _FAINT, font, anchor="ms")
    for row, text in enumerate(titles.rows[: plan.rows]):
        x, y = plan.corner(row * plan.columns)
        draw.text((x + plan.pad, y - plan.pad // 2), _shortened(text, font, room), _TEXT, font, anchor="lb")


def _draw_cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    plan: _Plan,
    corner: tuple[int, int],
    picture: Image.Image | None,
    caption: str,
    mark: Mark,
) -> None:
    left, top = corner
    right, bottom = left + plan.step[0] - plan.pad, top + plan.step[1] - plan.row_title - plan.pad
    draw.rounded_rectangle((left, top, right, bottom), max(2, plan.pad // 2), _CELL)
    inner = left + plan.pad // 2
    box = (inner, top + plan.pad // 2, inner + plan.cell, top + plan.pad // 2 + plan.tall)
    _draw_picture(sheet, draw, box, picture, mark.crossed)
    if mark.badge:
        _draw_badge(draw, plan, box, mark)
    thick = max(3, plan.pad // 2 + 1)
    below = box[3] + thick // 2
    if mark.fraction is not None:
        draw.rectangle((box[0], below, box[2] - 1, below + thick), _BACK)
        end = box[0] + max(thick, round((plan.cell - 1) * min(1.0, max(0.0, mark.fraction))))
        draw.rectangle((box[0], below, end, below + thick), colour(mark.fraction))
    y = below + thick + plan.pad // 2
    for number, line in enumerate(caption.split("\n")):
        font = _font(plan.small if number else plan.large)
        ink = _FAINT if number or mark.crossed else _TEXT
        draw.text((box[0], y), _shortened(line, font, plan.cell), ink, font)
        y += round((plan.small if number else plan.large) * 1.3)


def _draw_picture(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    picture: Image.Image | None,
    crossed: bool,
) -> None:
    wide, tall = box[2] - box[0], box[3] - box[1]
    if picture is None:
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), _BACK)
    else:
        # Reduced before it becomes RGB, so that a sheet of huge pictures needs the memory of one.
        scale = min(1.0, wide / picture.width, tall / picture.height)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        small = picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        small = small.convert("RGB")
        if crossed:
            small = Image.blend(small, Image.new("RGB", small.size, _CELL), 0.65)
        sheet.paste(small, (box[0] + (wide - size[0]) // 2, box[1] + (tall - size[1]) // 2))
    if crossed:
        middle, arm = (box[0] + wide // 2, box[1] + tall // 2), min(wide, tall) // 8
        for slope in (1, -1):
            ends = (middle[0] - arm, middle[1] - slope * arm, middle[0] + arm, middle[1] + slope * arm)
            draw.line(ends, _FAINT, max(2, arm // 6))


def _draw_badge(draw: ImageDraw.ImageDraw, plan: _Plan, box: tuple[int, int, int, int], mark: Mark) -> None:
    font = _font(plan.large)
    text = _shortened(mark.badge, font, plan.cell - 2 * plan.pad)
    width = round(font.getlength(text)) + plan.pad + plan.large // 3
    fill = _BACK if mark.fraction is None else colour(mark.fraction)
    ink = _TEXT if mark.fraction is None else _BACK
    draw.rectangle((box[0], box[1], box[0] + width, box[1] + round(1.35 * plan.large)), fill)
    draw.text((box[0] + width / 2, box[1] + 0.7 * plan.large), text, ink, font, anchor="mm")


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _font(size: int) -> _Font:
    return ImageFont.load_default(size)


def _shortened(text: str, font: _Font, room: float) -> str:
    """The text with its middle left out until it fits, so that both ends of a file name stay readable."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if font.getlength(text) <= room:
        return text
    for keep in range(len(text) - 1, 1, -1):
        short = f"{text[: math.ceil(keep * 0.6)]}…{text[len(text) - keep // 3 :]}"
        if len(short) < len(text) and font.getlength(short) <= room:
            return short
    return "…"
