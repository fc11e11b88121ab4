"""Held-out ladders: every kind damages more and more, counted steps by a slow loop, perfect and blind scorers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from latent_critic.core.benchmark.ladders import run_ladders
from latent_critic.core.benchmark.runner import BenchmarkRequest
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.data.held_out import HELD_OUT_KINDS, HELD_OUT_SEVERITIES, held_out_damage
from latent_critic.core.data.rated import RatedSet
from latent_critic.core.data.similarity import ssim
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.images import load_image
from latent_critic.core.records import Score as OneScore
from latent_critic.core.records import ScoreBatch, ScoreSpec
from PIL import Image
from scipy.ndimage import gaussian_filter


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two textures with edges, large enough for every kind."""
    folder = tmp_path_factory.mktemp("good")
    draw, found = np.random.default_rng(0), []
    for place in range(2):
        texture = gaussian_filter(draw.normal(size=(128, 160, 3)), (2 + place, 2, 0))
        pixels = 128 + 45 * texture / texture.std() + 40 * (np.arange(160) // 40 % 2)[None, :, None]
        found.append(folder / f"{place}.png")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(found[-1])
    return found


class Scorer:
    """Scores by a function of the picture."""

    def __init__(self, value, name="judge", direction="higher"):
        self.spec, self.value = ScoreSpec(name, direction=direction), value

    def score(self, images, prompts=None, *, watch=None):
        return ScoreBatch(self.spec, tuple(OneScore.of(self.value(image), i) for i, image in enumerate(images)))


def asked(*scorers, **rest):
    return BenchmarkRequest(RatedSet("ladders", ()), "all", scorers, resamples=100, **rest)


def truth(pictures):
    """A scorer that knows the originals: structural similarity to the nearest of them."""
    clean = [load_image(path) for path in pictures]
    return lambda image: max(ssim(one, image) for one in clean)


@pytest.mark.parametrize("kind", HELD_OUT_KINDS)
def test_each_kind_damages_more_and_more(pictures, kind):
    clean = load_image(pictures[0])
    ladder = [held_out_damage(clean, kind, severity, seed=3) for severity in (0, *HELD_OUT_SEVERITIES)]
    assert torch.equal(ladder[0], clean)
    similar = [ssim(clean, image) for image in ladder]
    assert similar == sorted(similar, reverse=True)
    assert similar[0] - similar[-1] > 0.15
    for image in ladder:
        assert image.shape == clean.shape
        assert image.dtype == torch.float32
        assert 0.0 <= float(image.min()) <= float(image.max()) <= 1.0
    assert torch.equal(ladder[3], held_out_damage(clean, kind, 3, seed=3)), "the same seed, the same picture"


def test_held_out_kinds_are_none_that_training_knows():
    assert not set(HELD_OUT_KINDS) & set(KINDS)


def test_bad_damage_is_named():
    image = torch.zeros(3, 16, 16)
    with pytest.raises(BadInput, match="disc_blur"):
        held_out_damage(image, "jpeg", 1)
    with pytest.raises(BadInput, match="0 to 5"):
        held_out_damage(image, "webp", 6)


def test_a_scorer_that_knows_the_truth_falls_at_every_step(pictures):
    (row,) = run_ladders(pictures, asked(Scorer(truth(pictures))))
    assert row.share == (1.0, 1.0, 1.0)
    assert row.srcc[0] > 0.99
    assert row.falls == row.n
    assert set(row.kinds) == set(HELD_OUT_KINDS)


def test_counted_steps_equal_a_slow_loop(pictures):
    seen = Scorer(lambda image: float(image.std()))
    (row,) = run_ladders(pictures, asked(seen))
    falls = steps = 0
    for path in pictures:
        clean = load_image(path)
        for kind in HELD_OUT_KINDS:
            before = clean
            for severity in HELD_OUT_SEVERITIES:
                now = held_out_damage(clean, kind, severity, sum(path.name.encode()))
                if ssim(clean, before) - ssim(clean, now) >= 0.02:
                    steps += 1
                    falls += seen.value(now) < seen.value(before)
                before = now
    assert (row.falls, row.n) == (falls, steps)
    assert sum(kind["n"] for kind in row.kinds.values()) == steps
    assert row.share[1] <= row.share[0] <= row.share[2]


def test_blind_and_upside_down_scorers_are_told_apart(pictures, tmp_path):
    best, good = truth(pictures), Scorer(truth(pictures))
    blind = Scorer(lambda image: 1.0, "blind")
    turned = Scorer(lambda image: -best(image), "turned", "lower")
    upside = Scorer(lambda image: -best(image), "upside")
    log = tmp_path / "runs.jsonl"
    rows = {row.scorer: row for row in run_ladders(pictures, asked(good, blind, turned, upside, log=log))}
    assert rows["turned"].share[0] == 1.0
    assert rows["blind"].share[0] == rows["blind"].srcc[0] == 0.0, "a score that stays is no fall"
    assert rows["blind"].content_spread is None
    assert rows["upside"].srcc[0] < -0.99
    assert rows["judge"].versus == {}
    assert rows["upside"].versus["difference"] == -1.0
    assert rows["upside"].versus["p_holm"] >= rows["upside"].versus["p"]
    assert rows["turned"].versus["difference"] == 0.0
    found = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["data"] for line in found] == ["ladders"] * 4
    assert found[0]["plcc"] is None


def test_nothing_to_damage(pictures, tmp_path):
    with pytest.raises(BadInput, match="pictures and a scorer"):
        run_ladders([], asked(Scorer(lambda image: 1.0)))
    with pytest.raises(UnreadableFile):
        run_ladders([tmp_path / "gone.png"], asked(Scorer(lambda image: 1.0)))
    flat = tmp_path / "flat.png"
    Image.new("RGB", (64, 64), "grey").save(flat)
    with pytest.raises(BadInput, match="visible damage"):
        run_ladders([flat], asked(Scorer(lambda image: float("nan"))))
