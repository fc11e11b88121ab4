"""Several scorers in one run: comparisons, prompts, stores, costs, spread over noise draws, plots."""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from latent_critic.core.benchmark.ladders import LadderRow
from latent_critic.core.benchmark.plots import write_plots
from latent_critic.core.benchmark.runner import BenchmarkRequest, adjusted, benchmark
from latent_critic.core.benchmark.scoring import Contestant
from latent_critic.core.benchmark.significance import compare
from latent_critic.core.data.rated import RatedImage, RatedSet
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec
from PIL import Image


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Greys of twelve contents, two kinds of each, rated by their brightness; each with its prompt."""
    folder = tmp_path_factory.mktemp("greys")
    images = []
    for place in range(24):
        path = folder / f"{place}.png"
        Image.new("RGB", (16, 16), (place * 10,) * 3).save(path)
        kind = "jpeg" if place % 2 else "blur"
        images.append(RatedImage(path, place * 4.0, f"content {place // 2}", "test", f"prompt {place}", kind, 1))
    return RatedSet("greys", tuple(images))


class Brightness:
    """Mean brightness with fixed noise of its own seed; counts rows as a denoiser would."""

    def __init__(self, name="judge", noise=0.0, seed=0, direction="higher"):
        self.spec = ScoreSpec(name, direction=direction, settings={"seed": seed, "noise": noise})
        self.noise, self.seed, self.rows, self.prompts, self.seen = noise, seed, 0, [], 0

    def score(self, images, prompts=None, *, watch=None):
        self.prompts.append(prompts)
        self.seen += len(images)
        self.rows += 3 * len(images)
        scores = []
        for index, image in enumerate(images):
            # By the picture, whatever its place, as every scorer's noise is.
            draw = np.random.default_rng([self.seed, round(float(image.mean()) * 255)])
            value = 100 * float(image.mean()) + self.noise * draw.normal()
            scores.append(Score.of(-value if self.spec.direction == "lower" else value, index))
        return ScoreBatch(self.spec, tuple(scores))


def test_every_scorer_is_compared_with_the_judge_wherever_it_stands(rated):
    request = BenchmarkRequest(rated, "test", [Brightness("a", 60), Brightness(), Brightness("b", 1)], resamples=200)
    report = benchmark(request)
    a, judge, b = report.rows
    assert judge.versus is None
    assert (a.versus.scorer, b.versus.scorer) == ("judge", "judge")
    expected = compare(
        report.scored[0].values,
        report.scored[1].values,
        [image.mos for image in rated.images],
        [image.group for image in rated.images],
        resamples=200,
    )
    assert a.versus.comparison == expected
    told = a.to_dict()
    assert told["difference"] == pytest.approx(a.srcc - judge.srcc)
    assert told["p_holm"] == pytest.approx(min(1.0, 2 * told["p"]), abs=1e-12)
    assert judge.to_dict()["versus"] is None
    assert set(judge.to_dict()) == set(told)
    assert judge.contents == 12


def test_p_values_are_adjusted_over_all_tables_together(rated):
    rows = benchmark(BenchmarkRequest(rated, "test", [Brightness(), Brightness("a", 60)], resamples=200)).rows
    many = adjusted([*rows, *rows, *rows])
    assert many[1].versus.p_holm == pytest.approx(min(1.0, 3 * rows[1].versus.comparison.p))


def test_prompts_reach_the_scorer_only_when_every_picture_has_one(rated):
    scorer = Brightness()
    benchmark(BenchmarkRequest(rated, "test", [scorer], resamples=10, batch=10))
    assert scorer.prompts[0] == [f"prompt {place}" for place in range(10)]
    bare = RatedSet("bare", tuple(replace(image, prompt=None) for image in rated.images))
    scorer = Brightness()
    benchmark(BenchmarkRequest(bare, "test", [scorer], resamples=10))
    assert set(scorer.prompts) == {None}


def test_agreement_within_each_kind(rated):
    (row,) = benchmark(BenchmarkRequest(rated, "test", [Brightness()], resamples=10)).rows
    assert row.kinds == {"blur": {"srcc": pytest.approx(1), "n": 12}, "jpeg": {"srcc": pytest.approx(1), "n": 12}}


class Memory:
    """A store in memory that can be killed."""

    def __init__(self):
        self.kept, self.opened = {}, []

    @contextmanager
    def __call__(self, spec):
        self.opened.append(spec.name)
        yield self

    def value(self, path, mark):
        return self.kept.get((path, mark))

    def add(self, found):
        self.kept.update({(path, mark): score.value for path, mark, score in found if score.ok})


def test_a_stopped_run_goes_on_from_its_store(rated):
    stores, first, second = Memory(), Brightness(), Brightness()

    def stop(done, total):
        if done >= 10:
            raise KeyboardInterrupt

    request = BenchmarkRequest(rated, "test", [first], resamples=50, batch=5, stores=stores)
    with pytest.raises(KeyboardInterrupt):
        benchmark(request, stop)
    assert len(stores.kept) == 10
    resumed = benchmark(replace(request, scorers=[second]))
    assert second.seen == 14
    whole = benchmark(replace(request, scorers=[Brightness()], stores=None))
    assert resumed.rows[0].measures == whole.rows[0].measures
    again = benchmark(replace(request, scorers=[Brightness()]))
    assert again.rows[0].costs.images_per_second is None, "nothing was scored, so nothing was timed"
    assert again.rows[0].measures == whole.rows[0].measures


def test_kept_scores_cost_what_the_log_says_they_cost(rated, tmp_path):
    request = BenchmarkRequest(rated, "test", [Brightness()], resamples=50, log=tmp_path / "log.jsonl", stores=Memory())
    first = benchmark(request).rows[0].costs
    assert first.images_per_second is not None
    again = benchmark(replace(request, scorers=[Brightness()])).rows[0].costs
    assert again == first
    assert benchmark(replace(request, scorers=[Brightness()])).rows[0].costs == first, (
        "a run without any is passed over"
    )
    for other in (Brightness(seed=1), Brightness("a")):
        store = Memory()
        benchmark(replace(request, scorers=[other], log=None, stores=store))
        told = benchmark(replace(request, scorers=[other], stores=store)).rows[0].costs
        assert told.images_per_second is None, "another scorer's costs are not this one's"


def test_a_lower_is_better_scorer_resumes_with_its_sign(rated):
    stores = Memory()
    request = BenchmarkRequest(rated, "test", [Brightness("low", direction="lower")], resamples=10, stores=stores)
    assert benchmark(request).rows[0].srcc == pytest.approx(1)
    assert benchmark(request).rows[0].srcc == pytest.approx(1)


def test_costs_are_measured(rated):
    scorer = Brightness()
    contestant = Contestant(scorer, lambda: scorer.rows)
    costs = benchmark(BenchmarkRequest(rated, "test", [contestant], resamples=10)).rows[0].costs
    assert costs.images_per_second > 0
    assert costs.denoiser_calls == 3.0
    assert costs.peak_mib is None or costs.peak_mib > 10


def test_the_peak_is_that_of_each_scorer(rated):
    class Greedy(Brightness):
        def score(self, images, prompts=None, *, watch=None):
            with mmap.mmap(-1, 256 * 2**20) as held:  # never from what the process has freed but still holds
                for page in range(0, len(held), mmap.PAGESIZE):
                    held[page] = 1
            return super().score(images, prompts)

    rows = benchmark(BenchmarkRequest(rated, "test", [Brightness(), Greedy("a"), Brightness("b")], resamples=10)).rows
    before, greedy, after = (row.costs.peak_mib for row in rows)
    if greedy is None:
        pytest.skip("this system cannot measure it")
    assert greedy - before > 200
    assert greedy - after > 200


def test_the_spread_over_noise_draws(rated):
    quiet, loud = (
        Contestant(Brightness("a", noise), None, lambda seed, n=noise: Brightness("a", n, seed)) for noise in (0, 9)
    )
    request = BenchmarkRequest(rated, "test", [Brightness(), quiet, loud], resamples=10, draws=8)
    drawless, still, moving = (row.noise_spread for row in benchmark(request).rows)
    assert drawless == still == 0.0
    # Noise of 9 on brightness with a standard deviation of about 28 over the pictures.
    assert moving == pytest.approx(9 / 28, rel=0.35)
    assert benchmark(replace(request, draws=0)).rows[2].noise_spread is None


def test_plots_are_pictures(rated, tmp_path):
    report = benchmark(BenchmarkRequest(rated, "test", [Brightness(), Brightness("a", 40)], resamples=50))
    ladder = LadderRow("judge", None, 5, 0, 4, (0.8, 0.5, 1.0), (0.9, 0.8, 1.0), 0.5, {"webp": {"falls": 4, "n": 5}})
    written = write_plots(tmp_path / "deep", [report], [ladder])
    names = {path.name for path in written}
    assert names == {
        "greys_test_judge_scatter.png", "greys_test_a_scatter.png", "greys_test_kinds.png", "ladders_kinds.png",
        "summary.png",
    }  # fmt: skip
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 100
            assert len(np.unique(np.asarray(picture.convert("L")))) > 5


def test_plots_without_matplotlib_name_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"latent-critic\[plots\]"):
        write_plots(tmp_path, [])
