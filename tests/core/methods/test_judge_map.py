"""The judge's heat map: it adds up to the judge's own value, and damage shows where it is."""

import copy
import logging

import numpy as np
import pytest
import torch
from latent_critic.core.data.distortions import distort
from latent_critic.core.errors import BadInput
from latent_critic.core.methods.contract import MapScorer
from latent_critic.core.methods.judge import Judge
from latent_critic.core.nets.judge import describe
from latent_critic.core.nets.views import crops, global_view

logger = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def judge():
    return Judge.load()


@pytest.fixture(scope="module")
def photographs():
    """Free photographs that scikit-image carries."""
    from skimage import data

    found = {}
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        pixels = np.ascontiguousarray(getattr(data, name)())
        image = torch.from_numpy(pixels).float().div(255).movedim(-1, 0)
        found[name] = torch.nn.functional.interpolate(image[None], scale_factor=0.75, antialias=True, mode="bilinear")[
            0
        ].clamp(0, 1)
    return found


def own_logit(judge, image):
    """The judge's logit in double precision from its own modules, without anything of the map."""
    network = copy.deepcopy(judge.network).double()
    rows = []
    for view in [*crops(image).split(1), global_view(image)]:
        maps = judge.network.backbone.features(view)
        parts = []
        for values in maps:
            flat = values.double().flatten(2)
            parts += [flat.mean(2), flat.std(2, correction=0)]
        rows.append(torch.cat(parts, 1))
    described = describe(torch.cat(rows[:-1])[None], rows[-1])
    return float(network.head.logits(network.head.standardised(described))[0])


@pytest.mark.parametrize(("height", "width"), [(256, 256), (300, 520), (64, 90), (90, 700), (256, 1200), (33, 40)])
@torch.inference_mode()
def test_it_adds_up_to_the_judges_own_logit(judge, height, width):
    small = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(height))
    image = torch.nn.functional.interpolate(small, (height, width), mode="bicubic")[0].clamp(0, 1)
    found = judge.heat_map(image)
    assert found.total == pytest.approx(own_logit(judge, image), abs=1e-6)
    assert found.score == pytest.approx(judge.score([image])[0].value, abs=0.05)
    assert float(found.density(16, 16).sum()) == pytest.approx(found.total - found.base, abs=1e-8)
    assert (found.height, found.width) == (height, width)


@torch.inference_mode()
def test_a_judge_that_looks_at_fewer_views():
    fast, image = Judge.load(policy="fast"), torch.rand(3, 600, 800, generator=torch.Generator().manual_seed(0))
    assert fast.heat_map(image).score == pytest.approx(fast.score([image])[0].value, abs=0.05)


def test_the_average_training_picture_is_the_base(judge):
    head = judge.network.head
    logit = head.logits(head.standardised(head.centre[None]))
    assert judge.heat_map(torch.rand(3, 256, 256)).base == pytest.approx(float(logit), abs=1e-4)


def test_it_is_a_scorer_of_maps(judge):
    assert isinstance(judge, MapScorer)


def test_pictures_that_cannot_be_scored_are_refused(judge):
    for wrong in (torch.full((3, 64, 64), float("nan")), torch.rand(3, 8, 64)):
        with pytest.raises(BadInput, match="can be scored"):
            judge.heat_map(wrong)


def test_watch_may_stop_it(judge):
    seen = []

    def stop(done, total):
        seen.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge.heat_map(torch.rand(3, 256, 512), watch=stop)
    assert seen == [(1, 3)]


def quadrants(density):
    half = density.shape[0] // 2, density.shape[1] // 2
    return [float(density[y, x].sum()) for y in _sides(half[0]) for x in _sides(half[1])]


def _sides(half):
    return slice(None, half), slice(half, None)


def damaged_quadrants(judge, image, kind):
    """(the damaged quadrant, the one whose contributions fell most) for each quadrant."""
    clean = judge.heat_map(image).density(16, 16)
    height, width = (side // 2 for side in image.shape[1:])
    for place in range(4):
        y, x = _sides(height)[place // 2], _sides(width)[place % 2]
        damaged = image.clone()
        damaged[:, y, x] = distort(image[:, y, x].contiguous(), kind, 4)
        change = quadrants(judge.heat_map(damaged).density(16, 16) - clean)
        yield place, int(np.argmin(change))


def test_damage_shows_where_it_is(judge, photographs):
    """One quadrant damaged: its contributions fall most, for the kinds of damage that this judge does see in one."""
    found = []
    for kind in ("gaussian_blur", "jpeg", "downscale"):
        for image in photographs.values():
            found += [place == worst for place, worst in damaged_quadrants(judge, image, kind)]
    logger.info("judge's heat map: the damaged quadrant is the worst in %d of %d cases", sum(found), len(found))
    assert sum(found) >= 0.95 * len(found)
