"""Named steps with their output, their time and a closing table."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class StepFailed(Exception):
    """A step did not do what it promises."""


def say(text: str = "") -> None:
    """One line to the terminal, at once."""
    print(text, flush=True)


def call(
    command: Sequence[str | Path],
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a command with its output shown and no standard input.

    Raises:
        StepFailed: it is not there, or it ended with a code other than 0.
    """
    words = [str(word) for word in command]
    say("$ " + shlex.join(words))
    try:
        done = subprocess.run(words, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError as error:
        raise StepFailed(f"{words[0]} is not installed") from error
    if done.returncode != 0:
        raise StepFailed(f"{Path(words[0]).name} ended with code {done.returncode}")


def answer(command: Sequence[str | Path], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """What a command prints, both streams together.

    Raises:
        StepFailed: it ended with a code other than 0; its output is part of the message.
    """
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise StepFailed(f"{Path(str(command[0])).name} ended with code {done.returncode}:\n{done.stdout}")
    return done.stdout


@dataclass
class Timetable:
    """Steps in the order in which they ran, with seconds and outcome."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    @contextmanager
    def _timed(self, name: str):
        say(f"\n=== {name}")
        start = time.monotonic()
        outcome = "FAILED"
        try:
            yield
            outcome = "ok"
        finally:
            self.rows.append((name, time.monotonic() - start, outcome))

    def run(self, name: str, job: Callable[[], None], *, go_on: bool = False) -> None:
        """Do one step; with ``go_on`` a failure is written down and the next step still runs."""
        try:
            with self._timed(name):
                job()
        except StepFailed as error:
            say(f"--- {name}: {error}")
            if not go_on:
                raise

    @property
    def failed(self) -> list[str]:
        """The names of the steps that failed."""
        return [name for name, _, outcome in self.rows if outcome != "ok"]

    def close(self) -> int:
        """Print the table; return the exit code."""
        width = max(len(name) for name, _, _ in self.rows)
        say("\nSteps")
        for name, seconds, outcome in self.rows:
            say(f"  {name:{width}}  {seconds:7.1f} s  {outcome}")
        say(f"  {'in all':{width}}  {sum(row[1] for row in self.rows):7.1f} s")
        sys.stdout.flush()
        return 1 if self.failed else 0
