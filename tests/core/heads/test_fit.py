"""Heads fitted to features with a known answer."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.heads.fit import FitOptions, fit_head, hold_out
from latent_critic.core.heads.folds import folds_by_group
from latent_critic.core.heads.layout import Layout
from latent_critic.core.heads.link import fit_link
from latent_critic.core.heads.ridge import RidgePath
from latent_critic.core.heads.scaling import Scaler
from scipy import stats

#: Networks take their time: fewer folds.
MODELS = (FitOptions(), FitOptions("kernel"), FitOptions("mlp", folds=2))
NAMES = [options.model for options in MODELS]


def srcc(a, b):
    return float(stats.spearmanr(np.asarray(a), np.asarray(b)).statistic)


@pytest.mark.parametrize("options", MODELS, ids=NAMES)
def test_a_head_finds_what_the_ratings_follow(rated, layout, meta, options):
    features, ratings, groups = rated()
    fitted = fit_head(features, ratings, groups, layout, meta(), options)
    unseen, truth, _ = rated(seed=1)
    found = fitted.head.predict(unseen)
    assert srcc(found.value, truth) > 0.85
    assert srcc(fitted.report.held_out, ratings) > 0.8
    assert float(found.value.min()) >= 0.0
    assert float(found.value.max()) <= 100.0
    assert fitted.head.meta.pictures == len(ratings)


@pytest.mark.parametrize("options", MODELS[1:], ids=NAMES[1:])
def test_the_other_models_find_what_no_line_can(meta, options):
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(200, 4, generator=draw)
    ratings = 100.0 * torch.sigmoid(2.0 * features[:, 1].abs() - 2.0)
    layout = Layout.of([("up.0", 0, "mean", "whole", 4)])
    bent = fit_head(features, ratings, range(200), layout, meta(), options).report
    line = fit_head(features, ratings, range(200), layout, meta()).report
    assert bent.rmse < 0.6 * line.rmse


@pytest.mark.parametrize("options", MODELS, ids=NAMES)
def test_rows_do_not_depend_on_each_other(rated, layout, meta, options):
    features, ratings, groups = rated()
    head = fit_head(features, ratings, groups, layout, meta(), options).head
    together = head.predict(features)
    alone = [head.predict(row[None]) for row in features[:5]]
    assert [float(one.value) for one in alone] == pytest.approx(together.value[:5].tolist(), abs=1e-8)
    assert [float(one.spread) for one in alone] == pytest.approx(together.spread[:5].tolist(), abs=1e-8)


@pytest.mark.parametrize("options", MODELS, ids=NAMES)
def test_the_same_ratings_give_the_same_head_and_leave_the_random_state(rated, layout, meta, options):
    features, ratings, groups = rated()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with torch.inference_mode():  # as ComfyUI's executor runs nodes
        first, second = (fit_head(features, ratings, groups, layout, meta(), options) for _ in range(2))
    assert torch.equal(first.head.predict(features).value, second.head.predict(features).value)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("options", MODELS, ids=NAMES)
def test_spreads_hold_what_they_say_on_new_pictures(rated, layout, meta, options):
    features, ratings, groups = rated(300, noise=8.0)
    fitted = fit_head(features, ratings, groups, layout, meta(), options)
    unseen, truth, _ = rated(1000, noise=8.0, seed=5)
    found = fitted.head.predict(unseen)
    apart = (found.value - truth).abs()
    assert float((apart <= found.spread).double().mean()) == pytest.approx(0.683, abs=0.07)
    assert float((apart <= 1.96 * found.spread).double().mean()) == pytest.approx(0.95, abs=0.04)
    assert fitted.report.within_one == pytest.approx(0.683, abs=0.08)


def test_the_spread_grows_away_from_what_was_seen(rated, layout, meta):
    features, ratings, groups = rated()
    head = fit_head(features, ratings, groups, layout, meta()).head
    middle = features.mean(0, keepdim=True)
    far = middle + 8.0 * (features[:1] - middle)
    assert float(head.predict(far).spread) > 1.3 * float(head.predict(middle).spread)


def test_ridge_is_the_closed_form(rated, layout):
    """Against numpy's least squares on rows extended by √λ·I, in the raw and in the dual form."""
    features, ratings, _ = rated(40)
    x, y = Scaler.fit(features, layout)(features), ratings.double()
    for rows in (20, 40):
        here, penalty = x[:rows], 10.0**-1.5
        solved = RidgePath((penalty,)).fit(here, y[:rows], 0)
        centred = (here - here.mean(0)).numpy()
        wide = np.vstack([centred, (penalty * rows) ** 0.5 * np.eye(32)])
        answer = np.concatenate([(y[:rows] - y[:rows].mean()).numpy(), np.zeros(32)])
        expected, *_ = np.linalg.lstsq(wide, answer, rcond=None)
        assert np.allclose(solved.weights.numpy(), expected, atol=1e-8)
        values, doubts = RidgePath((1e-3, penalty)).path(here, y[:rows], x)
        assert torch.allclose(values[:, 1], solved(x)[0], atol=1e-8)
        assert torch.allclose(doubts[:, 1], solved(x)[1], atol=1e-8)
        inverse = np.linalg.inv(centred.T @ centred + penalty * rows * np.eye(32))
        centre = (x - here.mean(0)).numpy()
        assert np.allclose(solved(x)[1].numpy(), np.einsum("ni,ij,nj->n", centre, inverse, centre), rtol=1e-6)


def test_what_is_held_out_was_not_seen(rated, layout):
    """Every fold's values equal those of a regressor fitted by hand without it, with the penalty chosen without it."""
    features, ratings, groups = rated(60)
    x, y, path = Scaler.fit(features, layout)(features), ratings.double(), RidgePath((1e-3, 1e-1, 10.0))
    held = hold_out(x, y, groups, path, folds=3)
    number = torch.tensor(held.fold)
    for f in range(3):
        rest = number != f
        errors = torch.zeros(3, dtype=torch.float64)
        for g in {0, 1, 2} - {f}:
            seen = rest & (number != g)
            values, _ = path.path(x[seen], y[seen], x[number == g])
            errors += (values - y[number == g, None]).square().sum(0)
        by_hand = path.fit(x[rest], y[rest], int(errors.argmin()))(x[~rest])[0]
        assert torch.allclose(held.values[~rest], by_hand, atol=1e-6)


def test_a_content_lies_in_one_fold():
    groups = [place % 7 for place in range(50)]
    fold = folds_by_group(groups, 5)
    assert len({(group, number) for group, number in zip(groups, fold, strict=True)}) == 7
    assert set(fold) == set(range(5))
    assert folds_by_group(groups, 5) == fold
    assert set(folds_by_group(["a", "b", "b"], 5)) == {0, 1}
    with pytest.raises(BadInput, match="two groups"):
        folds_by_group(["a", "a"], 5)


@pytest.mark.parametrize("kind", ["logistic", "isotonic"])
def test_links_rise_and_keep_to_the_scale(kind):
    draw = torch.Generator().manual_seed(0)
    raw = torch.randn(200, generator=draw, dtype=torch.float64) * 20 + 50
    truth = 100 * torch.sigmoid((raw - 40) / 10) + torch.randn(200, generator=draw)
    link = fit_link(raw, truth.clamp(0, 100), kind, (0.0, 100.0))
    steps = link(torch.linspace(float(raw.min()), float(raw.max()), 500, dtype=torch.float64)).tolist()
    assert all(before < after for before, after in pairwise(steps))
    assert 0.0 <= steps[0] < steps[-1] <= 100.0
    assert float((link(raw) - truth).square().mean().sqrt()) < 2.5
    assert fit_link(-raw, truth.clamp(0, 100), kind, (0.0, 100.0))(raw[:1]).isfinite().all()


def test_a_feature_that_does_not_vary_is_left_out(rated, layout, meta):
    features, ratings, groups = rated()
    features[:, 5] = 7.0
    head = fit_head(features, ratings, groups, layout, meta()).head
    before = head.predict(features[:3]).value
    features[:, 5] = 1e6
    assert torch.equal(head.predict(features[:3]).value, before)


def test_the_linear_form_is_the_head_before_its_link(rated, layout, meta):
    features, ratings, groups = rated()
    head = fit_head(features, ratings, groups, layout, meta()).head
    weights, intercept = head.linear()
    assert torch.allclose(features.double() @ weights + intercept, head.raw(features), atol=1e-8)
    assert fit_head(features, ratings, groups, layout, meta(), FitOptions("kernel")).head.linear() is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f, r, g: (f[:5], r[:5], g[:5]), "at least 10 pictures"),
        (lambda f, r, g: (f, torch.full_like(r, 50.0), g), "all rated 50"),
        (lambda f, r, g: (f, r * 2, g), "ratings from 0 to 100"),
        (lambda f, r, g: (f * float("nan"), r, g), "finite features"),
        (lambda f, r, g: (f[:, :10], r, g), "features"),
        (lambda f, r, g: (f, r, ["same"] * len(g)), "two groups"),
    ],
)
def test_what_cannot_be_fitted_is_refused(rated, layout, meta, change, words):
    with pytest.raises(BadInput, match=words):
        fit_head(*change(*rated()), layout, meta())


def test_unknown_models_and_links_are_named(rated, layout, meta):
    for options in (FitOptions(model="tree"), FitOptions(link="cubic")):
        with pytest.raises(BadInput, match="default is"):
            fit_head(*rated(), layout, meta(), options)
