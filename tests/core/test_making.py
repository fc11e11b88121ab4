"""`latent_critic.reroll` and `latent_critic.best_of`, as a script calls them."""

import subprocess
import sys

import latent_critic
import numpy as np
import pytest
import skimage.data
import torch
from latent_critic.core.errors import BadInput, UncalibratedThreshold
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


def test_importing_the_package_brings_no_torch():
    code = (
        "import sys, latent_critic; assert 'torch' not in sys.modules; assert 'reroll' in latent_critic.__all__; "
        "latent_critic.reroll; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=sys.prefix)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        latent_critic.nothing  # noqa: B018
