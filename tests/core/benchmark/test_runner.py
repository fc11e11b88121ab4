"""The benchmark runner: rows, direction, missing scores, streaming, the log of test runs."""

import json

import pytest
import torch
from latent_critic.core.benchmark.runner import BenchmarkRequest, run_benchmark
from latent_critic.core.data.loaders import rated_csv
from latent_critic.core.errors import BadInput
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec
from PIL import Image


class Brightness:
    """A scorer of mean brightness; the darkest picture gets none."""

    def __init__(self, direction="higher"):
        self.spec = ScoreSpec("brightness", direction=direction, settings={"power": 1})
        self.largest = 0

    def score(self, images, prompts=None, *, watch=None):
        self.largest = max(self.largest, len(images))
        values = [float(image.mean()) for image in images]
        if self.spec.direction == "lower":
            values = [-value for value in values]
        scores = [
            Score(None, i, reason="black") if image.max() == 0 else Score.of(value, i)
            for i, (image, value) in enumerate(zip(images, values, strict=True))
        ]
        return ScoreBatch(self.spec, tuple(scores))


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grey")
    rows = []
    for place in range(12):
        Image.new("RGB", (9, 9), (place * 20,) * 3).save(folder / f"{place}.png")
        rows.append(f"{place}.png,{place * 8}")
    (folder / "grey.csv").write_text("\n".join(rows))
    return rated_csv(folder / "grey.csv")


def test_rows_of_both_directions(rated):
    scorers = [Brightness(), Brightness("lower")]
    seen = []
    rows = run_benchmark(BenchmarkRequest(rated, "all", scorers, batch=5), lambda *at: seen.append(at))
    for row in rows:
        assert (row.data, row.split, row.scorer, row.n, row.missing) == ("grey", "all", "brightness", 11, 1)
        assert row.srcc == pytest.approx(1)
        assert row.backbone is None
    assert {"data", "split", "scorer", "backbone", "n", "srcc", "srcc_low", "srcc_high", "plcc", "krcc", "rmse"} < set(
        rows[0].to_dict()
    )
    assert seen == [(5, 24), (10, 24), (12, 24), (17, 24), (22, 24), (24, 24)]
    assert scorers[0].largest == 5, "pictures are streamed"


def test_every_test_run_is_logged_and_training_runs_are_not(rated, tmp_path):
    log = tmp_path / "deep" / "runs.jsonl"
    run_benchmark(BenchmarkRequest(rated, "train", [Brightness()], log=log))
    assert not log.exists()
    for _ in range(2):
        run_benchmark(BenchmarkRequest(rated, "test", [Brightness()], log=log))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0]["settings"] == {"power": 1}
    assert lines[0]["srcc"] == pytest.approx(1)
    assert lines[0]["when"] <= lines[1]["when"]


def test_nothing_to_measure(rated):
    with pytest.raises(BadInput, match="at least one scorer"):
        run_benchmark(BenchmarkRequest(rated, "all", []))
    few = type(rated)(rated.name, rated.images[:3])
    with pytest.raises(BadInput, match="at least 3 scores"):
        run_benchmark(BenchmarkRequest(few, "all", [Brightness()]))


def test_torch_is_not_moved(rated):
    state = torch.get_rng_state()
    run_benchmark(BenchmarkRequest(rated, "all", [Brightness()]))
    assert torch.equal(state, torch.get_rng_state())
