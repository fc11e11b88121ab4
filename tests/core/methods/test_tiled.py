"""Large pictures in tiles: where tiles lie, what a picture's score is of them, and that memory stays the same."""

import itertools
import tracemalloc
from dataclasses import replace

import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.methods.tiled import AT_ONCE, OVERLAP, Tiled, tiles
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec


class Mean:
    """A scorer whose value is the mean of a picture's pixels; it remembers what it was given."""

    class _Backbone:
        class family:
            native_size = 64

    backbone = _Backbone()

    def __init__(self, side=None, needs=("image",), **settings):
        self.spec = ScoreSpec("mean", needs=needs, size_policy="resized", settings={"side": side, **settings})
        self.seen, self.calls, self.texts = [], [], []

    def score(self, images, prompts=None, *, watch=None):
        self.calls.append(len(images))
        self.seen += [tuple(image.shape) for image in images]
        self.texts += prompts or []
        scores = []
        for place, image in enumerate(images):
            if watch is not None:
                watch(place + 1, len(images))
            value = float(image.double().mean())
            if value > 0.99:
                scores.append(Score(None, place, reason="too bright"))
                continue
            scores.append(Score.of(value, place, attributes={"part": value, "warnings": ["mind"], "other": 3}))
        return ScoreBatch(self.spec, tuple(scores))


def pictures(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


@pytest.mark.parametrize(
    "size", [(65, 65), (64, 200), (500, 333), (30, 400), (400, 30), (8, 700), (64, 65), (1000, 64)]
)
def test_tiles_cover_the_picture_with_overlap_at_one_size(size):
    height, width = size
    found = tiles(0, height, width, 64)
    seen = torch.zeros(height, width)
    for tile in found:
        assert 0 <= tile.top <= height - tile.height
        assert 0 <= tile.left <= width - tile.width
        tile.of(seen[None]).add_(1.0)
        assert tile.height * tile.width <= 64 * 64
        assert (tile.height, tile.width) == (found[0].height, found[0].width)
        assert max(tile.height, tile.width) <= 16 * min(tile.height, tile.width)
    assert float(seen.min()) >= 1.0
    for starts, side in (
        (sorted({t.top for t in found}), found[0].height),
        (sorted({t.left for t in found}), found[0].width),
    ):
        assert all(b - a <= side * (1 - OVERLAP) + 1 for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("size", [(64, 64), (64, 20), (8, 8), (63, 64)])
def test_a_picture_no_larger_than_a_tile_is_its_own_tile(size):
    (tile,) = tiles(3, *size, 64)
    assert (tile.picture, tile.top, tile.left, tile.height, tile.width) == (3, 0, 0, *size)


def test_small_pictures_are_scored_as_ever():
    images, plain, judged = pictures((64, 64), (10, 50)), Mean(), Mean()
    found = Tiled(judged).score(images, ["a", "b"])
    assert found.scores == plain.score(images, ["a", "b"]).scores
    assert (judged.calls, judged.texts) == ([2], ["a", "b"])
    assert found.spec.size_policy.endswith("others: resized")


def test_a_large_picture_is_the_mean_of_its_tiles():
    small, large = pictures((64, 64), (150, 100))
    judged = Mean()
    found = Tiled(judged).score([large, small], ["large", "small"])
    values = [float(tile.of(large).double().mean()) for tile in tiles(0, 150, 100, 64)]
    assert found[0].value == pytest.approx(sum(values) / len(values), abs=1e-12)
    told = found[0].attributes
    assert told["tiles"] == len(values) == 6
    assert told["tile_size"] == [64, 64]
    assert told["part"] == pytest.approx(found[0].value)
    assert "other" not in told
    assert told["worst_tile"]["value"] == min(values)
    assert told["tile_spread"] == pytest.approx(float(torch.tensor(values, dtype=torch.double).std(unbiased=False)))
    assert told["warnings"] == ["mind"]
    assert (found[1].value, found[1].index) == (pytest.approx(float(small.double().mean())), 1)
    assert judged.texts == ["large"] * 6 + ["small"]
    alone = Tiled(Mean()).score([large])
    assert alone[0] == found[0]


def test_the_policy_is_recorded():
    plain, spec = Mean(side=128).spec, Tiled(Mean(side=128)).spec
    assert Tiled(Mean(side=128)).side == 128
    assert "128×128" in spec.size_policy
    assert spec.size_policy != plain.size_policy
    assert spec.settings == {"side": 128, "large_images": "tiles", "tile_side": 128}
    assert spec.digest != plain.digest


def test_a_head_knows_nothing_of_tiles():
    judged = Tiled(Mean(needs=("image", "head")))
    large, small = judged.score(pictures((150, 100), (64, 64)))
    assert "under another size policy" in large.attributes["warnings"][-1]
    assert "without a scale" in large.attributes["warnings"][-1]
    assert small.attributes["warnings"] == ["mind"]


@pytest.mark.parametrize(("needs", "kept"), [(("image", "head"), False), (("image", "model"), True)])
def test_tiles_keep_no_scale_of_a_head(needs, kept):
    scorer = Mean(needs=needs)
    scorer.spec = replace(scorer.spec, scale=(0.0, 100.0), calibrated_on="photographs")
    judged = Tiled(scorer)
    assert scorer.spec.calibrated
    for spec in (judged.spec, judged.score(pictures((64, 64))).spec, judged.score(pictures((150, 100))).spec):
        assert spec.calibrated is kept
        assert (spec.scale is not None) is kept


def test_a_tile_without_a_score_is_the_pictures_reason():
    image = torch.full((3, 64, 200), 0.5)
    image[:, :, 130:] = 1.0
    bad, good = Tiled(Mean()).score([image, torch.full((3, 64, 200), 0.5)])
    assert bad.reason == "in its tile of 64×64 px at (136, 0): too bright"
    assert good.value == pytest.approx(0.5)


def test_progress_runs_to_its_end_and_may_stop():
    seen = []
    Tiled(Mean()).score(pictures((300, 300)), watch=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    assert len({total for _, total in seen}) == 1

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Tiled(Mean()).score(pictures((300, 300)), watch=stop)


def test_a_few_tiles_at_a_time_and_no_copies():
    image = torch.linspace(0.0, 1.0, 8192).expand(3, 8192, 8192)  # 8k, and 32 kB of memory
    judged = Mean(side=1024)
    tracemalloc.start()
    (found,) = Tiled(judged).score([image])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.value == pytest.approx(0.5, abs=1e-3)
    assert found.attributes["tiles"] == len(judged.seen) == 81
    assert set(judged.seen) == {(3, 1024, 1024)}
    assert max(judged.calls) <= AT_ONCE
    assert peak < 2e6


def test_bad_input():
    with pytest.raises(BadInput, match="size policy of its own"):
        Tiled(type("Other", (), {"spec": ScoreSpec("judge")})())
    with pytest.raises(BadInput, match="masks"):
        Tiled(Mean(masks="0123"))
    with pytest.raises(BadInput, match="2 prompts"):
        Tiled(Mean()).score(pictures((8, 8), (8, 8)), ["a"])
