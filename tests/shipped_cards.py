"""What holds for the folder of every head that ships: its card, its figures and its file belong together."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Shipped:
    """A folder of core/assets."""

    folder: Path

    def read(self, name: str) -> str:
        """A file in it."""
        return (self.folder / name).read_text(encoding="utf-8")

    def json(self, name: str) -> Any:
        """A JSON file in it."""
        return json.loads(self.read(name))

    @staticmethod
    def weights_of(run: dict[str, Any]) -> str | None:
        """The digest of the file behind a logged run, ``None`` where there is none."""
        settings = run["settings"]
        return settings.get("weights", settings.get("head"))

    def check_card(self) -> None:
        """The card is what its command writes."""
        script = ROOT / ".ci" / "cards.py"
        done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
        assert f"{self.folder / 'README.md'} is up to date" in done.stdout, done.stdout + done.stderr

    def check_ladders(self, weights: str, kinds: Any) -> None:
        """ladders.json is of this very head, on these kinds."""
        found = self.json("ladders.json")
        assert found["weights"] == weights
        assert set(found["kinds"]) == set(kinds)

    def check_runs(self, name: str, scorer: str, weights: str, others: frozenset[str] = frozenset()) -> None:
        """Every figure in a file of rows is the last logged run, and the scorer's own are of this very head."""
        runs = [json.loads(line) for line in self.read("test_runs.jsonl").splitlines()]
        last = {(run["data"], run["split"], run["scorer"]): run for run in runs}
        rows = self.json(name)
        assert {scorer} <= {row["scorer"] for row in rows} <= {scorer, *others}
        for row in rows:
            run = last[row["data"], row["split"], row["scorer"]]
            assert (run["srcc"], run["n"]) == (row["srcc"], row["n"])
            if row["scorer"] == scorer:
                assert self.weights_of(run) == weights

    def check_command(self, training: dict[str, Any], names: str) -> None:
        """The command in the card is the one that made it."""
        card = self.read("README.md")
        for name in names.split():
            assert f"--{name} {training[name]:g}" in card
