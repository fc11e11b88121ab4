"""Peak memory of `latent-critic score FOLDER --json FILE`, measured in a process of its own.

`python -m … ARGUMENTS` runs the command line with these arguments and then prints the peak in bytes as its last line.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import BadInput
from .speed_row import SpeedRow

_DISTINCT = 20
_SIDE = 96  # decoded in no time; the judge mirrors it to one 256-px crop


def memory_row(few: int, many: int) -> SpeedRow:
    """Peak memory of scoring ``many`` pictures over that of scoring ``few``, each in a fresh process."""
    with tempfile.TemporaryDirectory() as scratch:
        small, large = (_peak_of(_folder(Path(scratch) / str(count), count)) for count in (few, many))
    mebi = 2.0**20
    detail = (
        f"`latent-critic score` on a folder of {many} pictures of {_SIDE}×{_SIDE} px, {large / mebi:.0f} MiB, "
        f"over {few}, {small / mebi:.0f} MiB"
    )
    return SpeedRow("judge: peak memory of a folder", large / small, 1.05, "peak memory", detail)


def _folder(folder: Path, count: int) -> Path:
    """``count`` smooth random pictures, of which every twentieth is a copy of the same file."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:05d}.jpg"
        if number < _DISTINCT:
            rough = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            rough.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(path, quality=85)
        else:
            path.write_bytes((folder / f"{number % _DISTINCT:05d}.jpg").read_bytes())
    return folder


def _peak_of(folder: Path) -> int:
    report = folder.with_name(f"{folder.name}.json")
    command = [sys.executable, "-m", __name__, "score", str(folder), "--json", str(report), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise BadInput("a process that scores a folder", done.stderr.strip()[-500:], "Run `latent-critic score` on it.")
    return int(done.stdout.splitlines()[-1])


def peak_bytes() -> int:
    """The most memory that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would carry over what the parent held when it started this process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(arguments: list[str]) -> int:
    """Run the command line itself, then write this process's peak to standard output."""
    # By name, since this room knows nothing of the command line: it is what is measured, not what measures.
    code = import_module("..cli.main", __package__).main(arguments)
    sys.stdout.write(f"{peak_bytes()}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
