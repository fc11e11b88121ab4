"""`latent_critic.reroll` and `latent_critic.best_of`, as a script calls them."""

import subprocess
import sys

import latent_critic
import numpy as np
import pytest
import skimage.data
import torch
from latent_critic.core.errors import BadInput, UncalibratedThreshold
from latent_critic.core.history.store import History
from latent_critic.core.methods.judge import Judge
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec
from PIL import Image, ImageFilter

#: Blur of the photograph that each seed makes.
BLUR = {0: 6.0, 1: 2.0, 2: 0.0, 3: 4.0}


@pytest.fixture(scope="module")
def photograph():
    return Image.fromarray(skimage.data.astronaut()).resize((320, 320))


@pytest.fixture
def generate(photograph):
    made = []

    def make(seed):
        made.append(seed)
        return photograph.filter(ImageFilter.GaussianBlur(BLUR[seed]))

    make.made = made
    return make


class Brightness:
    def __init__(self, **spec):
        self.spec = ScoreSpec("brightness", **{"scale": (0.0, 100.0), "calibrated_on": "photographs", **spec})

    def score(self, images, prompts=None, *, watch=None):
        return ScoreBatch(self.spec, tuple(Score.of(100 * float(image.mean()), i) for i, image in enumerate(images)))


def test_the_built_in_judge_takes_the_sharpest(generate):
    found = latent_critic.best_of(generate, n=4)
    assert found.seed == 2
    assert found.passed
    assert isinstance(found.image, Image.Image)
    assert generate.made == [0, 1, 2, 3]
    assert [score.seed for score in found.log.scores] == [0, 1, 2, 3]


def test_reroll_stops_when_one_is_good(generate):
    scores = latent_critic.best_of(generate, Judge.load(), n=3).log.scores.values()
    generate.made.clear()
    found = latent_critic.reroll(generate, threshold=scores[1])
    assert found.passed
    assert generate.made == [0, 1]
    assert found.score.value == pytest.approx(scores[1], abs=1e-4)


@pytest.mark.parametrize("form", [lambda x: x, lambda x: x[None], lambda x: Image.fromarray(_bytes(x))])
def test_images_in_any_form(form):
    made = {5: 0.25, 9: 0.75}
    found = latent_critic.best_of(lambda seed: form(torch.full((3, 16, 16), made[seed])), Brightness(), seeds=(5, 9))
    assert found.seed == 9
    assert found.score.value == pytest.approx(75, abs=0.3)


def _bytes(image):
    return (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def test_what_is_no_image_is_refused():
    for nothing in (torch.zeros(2, 3, 8, 8), torch.zeros(8, 8), "picture.png", None):
        with pytest.raises(BadInput, match="one PIL image or one tensor"):
            latent_critic.best_of(lambda seed, image=nothing: image, Brightness())


def test_bad_requests_generate_nothing(generate):
    with pytest.raises(BadInput, match="at least one seed"):
        latent_critic.reroll(generate, Brightness(), seeds=[])
    with pytest.raises(BadInput, match="at least 1 attempt"):
        latent_critic.best_of(generate, Brightness(), n=0)
    with pytest.raises(UncalibratedThreshold):
        latent_critic.reroll(generate, Brightness(calibrated_on=None), threshold=50)
    assert generate.made == []


def test_calls_are_counted_by_the_script():
    spent = []

    def generate(seed):
        spent.extend(range(20))
        return torch.full((3, 16, 16), 0.1)

    found = latent_critic.reroll(generate, Brightness(), threshold=90, calls=50, count_calls=lambda: len(spent))
    assert found.log.calls == 40
    assert not found.passed


def denoising(level, closed=None):
    """A seed's brightness comes out of the dark over four steps; a preview after each of the first two."""

    def generate(seed):
        try:
            for step in (1, 2):
                yield torch.full((3, 16, 16), level[seed] * step / 4)
            return torch.full((3, 16, 16), level[seed])
        finally:
            if closed is not None:
                closed.append(seed)

    return generate


def test_best_of_finishes_only_the_promising_seeds():
    level, closed = {4: 0.2, 5: 0.9, 6: 0.5, 7: 0.1}, []
    halving = latent_critic.Halving((0.5, 0.5))
    found = latent_critic.best_of(denoising(level, closed), Brightness(), n=4, seeds=4, halving=halving)
    assert found.seed == 5
    assert found.score.value == pytest.approx(90, abs=1e-4)
    assert float(found.image.mean()) == pytest.approx(0.9)
    assert [look.kept for look in found.looks] == [(5, 6), (5,)]
    assert found.cost([0.25, 0.5]) == pytest.approx((4 + 2 + 2 * 1) / 16)
    assert sorted(closed) == [4, 5, 6, 7]
    assert closed[:2] == [4, 7] or closed[:2] == [7, 4]


def test_best_of_drops_what_history_knows_to_be_hopeless(tmp_path):
    history = History(tmp_path / "h.sqlite")
    level = {seed: 0.3 + 0.01 * seed for seed in range(30)}
    keep_all = latent_critic.Halving((1.0, 1.0))
    abort = latent_critic.EarlyAbort("of history", 0.5)
    options = {"halving": keep_all, "abort": abort, "history": history}
    at = {"model": "a", "looks": [0.1, 0.9]}
    first = latent_critic.best_of(denoising(level), Brightness(), n=30, at=at, **options)
    assert first.looks[0].kept == tuple(range(30))  # nothing to compare with yet
    dim_and_bright = {40: 0.2, 41: 0.9}
    elsewhere = {**at, "model": "b"}
    found = latent_critic.best_of(denoising(dim_and_bright), Brightness(), seeds=(40, 41), at=elsewhere, **options)
    assert found.looks[0].kept == (40, 41)  # another model's previews are no measure
    found = latent_critic.best_of(denoising(dim_and_bright), Brightness(), seeds=(40, 41), at=at, **options)
    assert found.looks[0].kept == (41,)
    assert "of 30 earlier ones at this step" in found.looks[0].dropped[40]
    assert {row["scorer"] for row in history.query()} == {"brightness"}


def test_a_history_of_previews_wants_to_know_what_they_share(tmp_path):
    history = History(tmp_path / "h.sqlite")
    with pytest.raises(BadInput, match="comparable"):
        latent_critic.best_of(denoising({0: 0.5}), Brightness(), halving=latent_critic.Halving(), history=history)


def test_all_listed_seeds_are_tried_and_any_integer_is_a_seed():
    seeds = np.arange(20)
    found = latent_critic.best_of(lambda seed: torch.full((3, 8, 8), seed / 40), Brightness(), seeds=seeds)
    assert (len(found.log.scores), found.seed) == (20, 19)
    found = latent_critic.best_of(lambda seed: torch.full((3, 8, 8), seed / 40), Brightness(), seeds=np.int64(5))
    assert (len(found.log.scores), found.seed) == (8, 12)


def test_a_generator_without_halving_is_refused():
    with pytest.raises(BadInput, match="halving for a generator"):
        latent_critic.best_of(denoising({0: 0.5}), Brightness(), n=1)


def test_previews_that_do_not_fit_the_looks_are_refused():
    for shares in ((0.5,), (0.5, 0.5, 0.5)):
        with pytest.raises(BadInput, match="preview"):
            latent_critic.best_of(denoising({0: 0.5}), Brightness(), n=1, halving=latent_critic.Halving(shares))


def test_a_real_pipeline_is_halved(diffusers):
    """The embedded model, one row per seed: the winner is the same as when its seed runs alone."""
    from latent_critic.core.hosts.diffusers.embedded import load_embedded
    from latent_critic.core.hosts.diffusers.sampling import predicted_clean, to_images

    pipeline, calls = load_embedded(), []
    pipeline.unet.register_forward_pre_hook(lambda *_: calls.append(1))

    def generate(seed):
        latents = predicted_clean(pipeline, "a sharp photo", [seed], size=64, steps=5, guidance=1.0)
        for step, clean in enumerate(latents, 1):
            if step in (1, 2):
                yield to_images(pipeline, clean)
        return to_images(pipeline, clean)

    found = latent_critic.best_of(generate, Brightness(), n=4, halving=latent_critic.Halving((0.5, 0.5)))
    assert len(calls) == 4 * 1 + 2 * 1 + 1 * 3
    assert found.cost([0.2, 0.4]) == pytest.approx(len(calls) / (4 * 5))
    assert found.image.shape == (1, 3, 64, 64)
    *_, alone = predicted_clean(pipeline, "a sharp photo", [found.seed], size=64, steps=5, guidance=1.0)
    assert torch.equal(found.image, to_images(pipeline, alone))


def test_importing_the_package_brings_no_torch():
    code = (
        "import sys, latent_critic; assert 'torch' not in sys.modules; assert 'reroll' in latent_critic.__all__; "
        "latent_critic.reroll; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=sys.prefix)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        latent_critic.nothing  # noqa: B018
