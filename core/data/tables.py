"""Tables as data sets come with them: CSV in any common encoding, Excel sheets, plain columns, MATLAB arrays."""

from __future__ import annotations

import codecs
import csv
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, MissingDependency, UnreadableFile

if TYPE_CHECKING:
    from numpy import ndarray

#: One row: the heading's field, in lower case → the text in it.
Row = dict[str, str]


def text_of(path: Path) -> str:
    """A text file in UTF-8 or, with its byte order mark, UTF-16 (what Excel saves as "Unicode text").

    Raises:
        UnreadableFile: missing, or in another encoding.
    """
    try:
        raw = path.read_bytes()
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return raw.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        got = "no such file" if not path.exists() else f"{type(error).__name__}: {error}"
        remedy = "Save it as UTF-8." if isinstance(error, UnicodeDecodeError) else f"Look into {path.parent}."
        raise UnreadableFile(f"the list of ratings {path.name}", got, remedy) from error


def cells(path: Path) -> list[list[str]]:
    """Rows of a CSV (commas, or tabs where the first line has no comma), every field stripped, empty rows left out."""
    lines = text_of(path).splitlines()
    mark = "\t" if lines and "," not in lines[0] and "\t" in lines[0] else ","
    try:
        rows = [[field.strip() for field in row] for row in csv.reader(lines, delimiter=mark)]
    except csv.Error as error:
        raise UnreadableFile(f"the list of ratings {path.name}", str(error), "Save it as plain CSV.") from error
    return [row for row in rows if any(row)]


def rows_of(path: Path, *needed: str, sheet: str | None = None) -> list[Row]:
    """Rows by heading, of a CSV or of an Excel file; the heading is the first row that holds every ``needed`` name.

    Where ``path`` is an Excel file that is not there, a CSV of the same name is taken: an export that needs no
    further package.

    Raises:
        BadInput: no such heading, or no rows under it.
        UnreadableFile: missing, or damaged.
        MissingDependency: an Excel file without openpyxl.
    """
    export = path.with_suffix(".csv")
    path = export if path.suffix == ".xlsx" and not path.exists() and export.exists() else path
    table = _sheet(path, sheet) if path.suffix == ".xlsx" else cells(path)
    wanted = {name.lower() for name in needed}
    for place, fields in enumerate(table):
        heading = [field.lower() for field in fields]
        if wanted <= set(heading):
            return [dict(zip(heading, row, strict=False)) for row in table[place + 1 :]]
    got = ", ".join(table[0]) if table else "an empty file"
    raise BadInput(f"the columns {', '.join(needed)} in {path.name}", got, "Use the authors' own list.")


def field(row: Row, *names: str) -> str:
    """The first of these fields that the row has; empty when it has none."""
    return next((row[name.lower()] for name in names if row.get(name.lower())), "")


def number(text: str | float, name: str) -> float:
    """A rating.

    Raises:
        BadInput: no number, or NaN.
    """
    try:
        found = float(text)
    except (TypeError, ValueError) as error:
        raise BadInput("a rating that is a number", f"{text!r} for {name}", "Repair this row of the list.") from error
    if math.isnan(found):
        raise BadInput("a rating that is a number", f"NaN for {name}", "Repair this row of the list, or take it out.")
    return found


def mat(path: Path, name: str) -> ndarray:
    """One array of a MATLAB file (up to v7), flattened; cells hold what they hold.

    Raises:
        UnreadableFile: missing, damaged, or without that array.
    """
    import numpy as np
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return np.ravel(loadmat(path, squeeze_me=True)[name])
    except KeyError as error:
        raise UnreadableFile(f"{name} in {path.name}", "no such array", "Use the authors' own file.") from error
    # scipy trusts what a damaged file says of its sizes and types, and fails wherever that leads.
    except (OSError, ValueError, TypeError, NotImplementedError, IndexError, MatReadError, zlib.error) as error:
        got = "no such file" if not path.exists() else f"{type(error).__name__}: {error}"
        raise UnreadableFile(f"the MATLAB file {path.name}", got, f"Look into {path.parent}.") from error


def by_lower_name(*folders: Path) -> Callable[[str], Path]:
    """A look-up of files that forgives the case of names, which lists and file systems differ in.

    The answer for a name that is not there is where it should be.
    """
    found = {path.name.lower(): path for folder in reversed(folders) if folder.is_dir() for path in folder.iterdir()}
    return lambda name: found.get(name.lower(), folders[0] / name)


def _sheet(path: Path, sheet: str | None) -> list[list[str]]:
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        remedy = "pip install 'latent-critic[data]', or export the sheet as CSV beside it."
        raise MissingDependency(f"openpyxl to read {path.name}", "no module openpyxl", remedy) from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except (OSError, InvalidFileException, zipfile.BadZipFile, KeyError, ValueError) as error:
        got = "no such file" if not path.exists() else f"{type(error).__name__}: {error}"
        raise UnreadableFile(f"the list of ratings {path.name}", got, f"Look into {path.parent}.") from error
    try:
        names = book.sheetnames
        if sheet is not None and sheet not in names:
            raise BadInput(f"a sheet {sheet} in {path.name}", ", ".join(names), "Use the authors' own list.")
        return list(_texts(book[sheet or names[0]].iter_rows(values_only=True)))
    finally:
        book.close()


def _texts(rows: Iterator[Sequence[Any]]) -> Iterator[list[str]]:
    for row in rows:
        found = ["" if value is None else _plain(value) for value in row]
        if any(found):
            yield found


def _plain(value: Any) -> str:
    """A cell as its text: Excel keeps the picture name 1600 and the level 1 as numbers."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value).strip()
