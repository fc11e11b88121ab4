"""lgdm's heat map through a real ComfyUI: it adds up to the head's own value, and damage shows where it is."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.host
logger = logging.getLogger(__name__)
SIDE = 64


@pytest.fixture(scope="module")
def mapped(features, make):
    """`mapped(family, **settings)` → Hyperfeatures, unguided unless told."""

    def build(family="sd15", **fields):
        return features(make(family), **{"zeta1": 0.0, **fields})

    return build


@pytest.fixture(scope="module")
def scorer(head_on):
    """`scorer(features, pictures, ratings)` → Lgdm with a head fitted to them, and the head."""

    def build(features, pictures, ratings, groups=None, **options):
        found = torch.stack([one.features for one in features.extract(pictures)])
        return head_on(features, found, torch.as_tensor(ratings), groups or range(len(found)), **options)

    return build


@pytest.fixture(scope="module")
def head_on(parts):
    """`head_on(features, rows, ratings, groups)` → Lgdm with a head fitted to rows of features, and the head."""

    def build(features, found, ratings, groups, **options):
        backbone = features.backbone
        meta = parts["head"].HeadMeta(
            method="lgdm", kind=features.options.kind, family=backbone.family.name,
            fingerprint=backbone.fingerprint.to_text(), sigmas=features.sigmas, prompt="",
            size_policy=features.options.policy(backbone.family), training_set="made up", pictures=len(found),
            calibrated_on="your ratings", scale=(0.0, 100.0), settings=features.settings(),
        )  # fmt: skip
        fit = parts["fit"]
        fitted = fit.fit_head(
            found,
            torch.as_tensor(ratings),
            groups or range(len(found)),
            features.layout,
            meta,
            fit.FitOptions(**options),
        )
        return parts["lgdm"].Lgdm(backbone, fitted.head), fitted.head

    return build


def pictures(count, height=SIDE, width=SIDE, seed=0):
    draw = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, 8, 8, generator=draw)
    images = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    grain = torch.linspace(0, 0.4, count)[:, None, None, None] * torch.rand(images.shape, generator=draw)
    return list((images + grain).clamp(0, 1))


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("sd15", {}),
        ("sd20", {"kind": "single_level"}),
        ("sdxl", {"reducers": ("mean", "std", "gmean3", "top25", "logstd")}),
        ("critic_ldm", {"zeta1": 0.02}),
        ("sd15", {"views": ("whole",), "position": True, "limit": None}),
        ("sd15", {"views": ("crops",), "taps": ("up.1", "mid")}),
    ],
)
def test_it_adds_up_to_the_heads_own_value(mapped, scorer, family, more):
    features = mapped(family, **more)
    judge, head = scorer(features, pictures(12), torch.linspace(90.0, 10.0, 12))
    for height, width in ((SIDE, SIDE), (90, 140), (48, 64)):
        (image,) = pictures(1, height, width, seed=9)
        found = judge.heat_map(image)
        (own,) = features.extract([image])
        weights, intercept = head.linear()
        by_hand = intercept + float(weights @ own.features.double())
        assert found.total == pytest.approx(by_hand, abs=1e-4 * max(1.0, abs(by_hand)))
        assert found.total == pytest.approx(float(head.raw(own.features[None])[0]), abs=1e-3)
        assert found.score == pytest.approx(judge.score([image])[0].value, abs=1e-2)
        assert float(found.density(7, 9).sum()) == pytest.approx(found.total - found.base, abs=1e-8)


def test_a_head_that_is_not_linear_is_refused(parts, mapped, scorer):
    judge, _ = scorer(mapped(), pictures(12), torch.linspace(90.0, 10.0, 12), model="kernel")
    with pytest.raises(parts["errors"].BadInput, match="a linear head"):
        judge.heat_map(pictures(1)[0])


def test_a_picture_that_cannot_be_scored_is_refused(parts, mapped, scorer):
    judge, _ = scorer(mapped(), pictures(12), torch.linspace(90.0, 10.0, 12))
    assert isinstance(judge, parts["contract"].MapScorer)
    with pytest.raises(parts["errors"].BadInput, match="can be scored"):
        judge.heat_map(torch.full((3, SIDE, SIDE), float("nan")))


TRAINING = ("astronaut", "chelsea", "motorcycle_left", "ihc", "retina", "hubble_deep_field")
HELD_BACK = ("coffee", "rocket", "camera")
QUADRANTS = [divmod(place, 2) for place in range(4)]


def photograph(name):
    """[3, H, W] of scikit-image's samples."""
    import skimage
    from PIL import Image

    folder = Path(skimage.__file__).parent / "data"
    with Image.open(next(path for path in sorted(folder.iterdir()) if path.stem == name)) as opened:
        return torch.from_numpy(np.array(opened.convert("RGB"))).float().div(255).movedim(-1, 0)


def squares(image, side, count, seed=0):
    """Square pieces of a picture at several scales, each side × side pixels."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        size = int(draw.integers(side, min(image.shape[1:]) + 1))
        top, left = (int(draw.integers(0, full - size + 1)) for full in image.shape[1:])
        cut = image[None, :, top : top + size, left : left + size]
        yield torch.nn.functional.interpolate(cut, (side, side), mode="bilinear", antialias=True)[0].clamp(0, 1)


def differences(features, ratings, groups):
    """Rows and ratings with each group moved to the common mean: what is left is what damage did to a picture."""
    rows, ratings = features.double().clone(), torch.tensor(ratings).double()
    middle, level = rows.mean(0), ratings.mean()
    for group in set(groups):
        mine = torch.tensor([name == group for name in groups])
        rows[mine] += middle - rows[mine].mean(0)
        ratings[mine] += level - ratings[mine].mean()
    return rows, ratings


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian_blur", "white_noise"])
def test_damage_shows_where_it_is(mapped, head_on, parts, kind):
    """The embedded model with a head that ladders of one damage taught, on pictures that the head has not seen.

    JPEG is left out: a head on this small model does not learn to see it, so that there is nothing to show.
    """
    distort, side = parts["distortions"].distort, 128
    features = mapped("critic_ldm", kind="single_level", timesteps=(60,), side=side, views=("whole",))
    images, ratings, groups = [], [], []
    for name in TRAINING:
        for number, piece in enumerate(squares(photograph(name), side, 3)):
            for severity in (0, 2, 4):
                images.append(distort(piece, kind, severity, seed=number))
                ratings.append(90.0 - 16.0 * severity)
                groups.append((name, number))
    found = torch.stack([one.features for one in features.extract(images)])
    judge, _ = head_on(features, *differences(found, ratings, groups), [name for name, _ in groups])
    hits = []
    for name in HELD_BACK:
        (clean,) = squares(photograph(name), side, 1)
        before = judge.heat_map(clean).density(16, 16)
        for place, (down, across) in enumerate(QUADRANTS):
            half = side // 2
            damaged, where = (
                clean.clone(),
                (slice(half * down, half * down + half), slice(half * across, half * across + half)),
            )
            damaged[:, where[0], where[1]] = distort(clean[:, where[0], where[1]].contiguous(), kind, 4, seed=99)
            change = judge.heat_map(damaged).density(16, 16) - before
            sums = [float(change[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].sum()) for y, x in QUADRANTS]
            hits.append(int(np.argmin(sums)) == place)
    logger.info("lgdm's heat map: %s: the damaged quadrant is the worst in %d of %d", kind, sum(hits), len(hits))
    assert sum(hits) >= 0.95 * len(hits)
