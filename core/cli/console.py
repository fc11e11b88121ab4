"""The one writer of the command line: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO


def say(text: str = "") -> None:
    """A line of the result."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """A line about the run: progress, warnings, errors."""
    _write(sys.stderr, text)


def say_json(value: Any) -> None:
    """A result as JSON, in ASCII so that no console's encoding can damage it."""
    _write(sys.stdout, json.dumps(value, indent=1, allow_nan=False))


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of texts as aligned columns; ``right`` names the columns that are set to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:
        # The reader (head, less) has what it wanted. The work goes on and keeps its exit code; what is still to be
        # said goes nowhere, also what Python flushes at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
