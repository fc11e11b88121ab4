"""A scorer that needs no weights, pictures of known score, and the command line called in process."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from latent_critic.core.cli import scoring
from latent_critic.core.cli.main import main
from latent_critic.core.images import as_list, reason_unscorable
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec
from PIL import Image


@dataclass
class Brightness:
    """A real scorer of the plainest kind: the mean pixel, 0 to 100."""

    spec: ScoreSpec = field(
        default_factory=lambda: ScoreSpec("judge", scale=(0, 100), calibrated_on="brightness", settings={"seed": 1})
    )
    seen: int = 0
    batches: list[int] = field(default_factory=list)

    def score(self, images, prompts=None, *, watch=None):
        scores = []
        for index, image in enumerate(as_list(images)):
            reason = reason_unscorable(image)
            value = 100 * float(image.mean())
            scores.append(Score(None, index, reason=reason) if reason else Score.of(value, index))
        self.seen += len(scores)
        self.batches.append(len(scores))
        return ScoreBatch(self.spec, tuple(scores))


@pytest.fixture
def scorer(monkeypatch):
    found = Brightness()
    monkeypatch.setattr(scoring, "load_scorer", lambda *_: found)
    return found


@pytest.fixture
def greys(tmp_path):
    """Make pictures of these grey levels (0 to 100) in pics/: `greys(10, 90)` → paths."""

    def make(*levels, folder="pics"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        paths = []
        for number, level in enumerate(levels):
            path = tmp_path / folder / f"p{number}.png"
            Image.fromarray(np.full((12, 16, 3), round(level * 2.55), np.uint8)).save(path)
            paths.append(path)
        return paths

    return make


@pytest.fixture
def cli(capsys):
    """Run the command line: `code, out, err = cli("score", path)`."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run
