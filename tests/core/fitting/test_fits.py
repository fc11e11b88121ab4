"""From pictures to heads: rated and unrated, resumed, costed, reported."""

from dataclasses import replace

import pytest
import torch
from latent_critic.core.cli.fit_plot import plot_curve
from latent_critic.core.errors import BadInput
from latent_critic.core.fitting.cost import cost_of, remaining, sizes_of
from latent_critic.core.fitting.ladder_steps import LadderOptions
from latent_critic.core.fitting.ladders import fit_unrated
from latent_critic.core.fitting.pictures import Pictures
from latent_critic.core.fitting.rated import fit_rated
from latent_critic.core.fitting.report import to_text
from latent_critic.core.guidance.options import GuidanceOptions
from latent_critic.core.images import to_picture
from latent_critic.core.methods.feature_cache import FeatureCache, extract_cached
from latent_critic.core.methods.hyperfeatures import Hyperfeatures
from latent_critic.core.methods.lgdm import Lgdm


@pytest.fixture
def rated(noisy):
    images, ratings = noisy(40)
    return Pictures.of_tensors("noisy ones", images, ratings)


def test_ratings_give_a_calibrated_head_with_held_out_agreement_and_a_curve(features, rated, noisy):
    fit = fit_rated(features, rated)
    assert fit.validation.srcc > 0.9
    assert fit.validation.srcc_low < fit.validation.srcc < fit.validation.srcc_high
    assert [point.pictures for point in fit.curve] == sorted(point.pictures for point in fit.curve)
    assert len(fit.curve) >= 2
    text = to_text(fit)
    assert "held-out agreement with your ratings: SRCC" in text
    assert "95 % interval" in text
    scorer = Lgdm(features.backbone, fit.head)
    images, _ = noisy(8, seed=7)
    values = scorer.score(images).values()
    assert values[0] > values[7]
    assert scorer.score(images[:1])[0].attributes["spread"] > 0.0
    assert scorer.spec.calibrated_on == "your ratings"
    assert fit.head.meta.validation["srcc"] == fit.validation.srcc


def test_without_ratings_the_head_ranks_damage_and_claims_nothing(features, noisy):
    images = [image for seed in range(8) for image in noisy(1, seed)[0]]
    pictures = Pictures.of_tensors("clean ones", images, None)
    kinds = ("white_noise", "impulse_noise", "gaussian_blur", "jpeg")
    fit = fit_unrated(features, pictures, options=LadderOptions(kinds, 2, (1, 3, 5)))
    assert fit.report.falling > 0.6
    assert fit.head.meta.calibrated_on is None
    assert fit.head.meta.scale is None
    assert "srcc" not in fit.head.meta.validation
    assert "no agreement with people is claimed" in to_text(fit)
    score = Lgdm(features.backbone, fit.head).score(images[:1])
    assert not score.spec.calibrated
    assert score[0].ok
    assert "spread" not in score[0].attributes  # nobody's ratings: nobody knows how far off it is


def test_pictures_with_other_channels_become_rgb_and_too_long_ones_are_left_out(features, noisy):
    images = [image for seed in range(5) for image in noisy(1, seed)[0]]
    images[0], images[1] = torch.cat([images[0], images[0][:1]]), images[1][:1]
    pictures = Pictures.of_tensors("mixed", [*images, torch.rand(3, 8, 600)], None)
    assert {source.shape[0] for source in pictures.sources} == {3}
    fit = fit_unrated(features, pictures, options=LadderOptions(("white_noise", "impulse_noise", "jpeg"), 2, (1, 5)))
    assert list(fit.left_out) == [5]
    assert "16:1" in fit.left_out[5]


def test_a_stopped_fit_goes_on_from_its_cache(features, rated, tmp_path):
    class Stop(Exception):
        pass

    def stop(what, done, total):
        if what == "features" and done >= 16:
            raise Stop

    cache = FeatureCache.of(tmp_path, features)
    with pytest.raises(Stop):
        fit_rated(features, rated, cache=cache, watch=stop)
    before = features.backbone.encoded
    fit = fit_rated(features, rated, cache=cache, curve=False)
    assert features.backbone.encoded - before == len(rated) - 16
    whole = fit_rated(features, rated, curve=False)
    assert torch.allclose(fit.report.held_out, whole.report.held_out, atol=1e-3)


def test_a_model_that_cannot_be_told_apart_keeps_nothing_on_disk(features, noisy, tmp_path):
    images, _ = noisy(2)
    features.backbone.identity = {"model": "plain", "opaque": "a.Network"}
    for _ in range(2):
        before = features.backbone.encoded
        extract_cached(features, images, FeatureCache.of(tmp_path, features))
        assert features.backbone.encoded - before == 2
    assert not list(tmp_path.rglob("*.safetensors"))


def test_pictures_that_cannot_be_read_are_left_out_and_named(features, noisy, tmp_path):
    images, ratings = noisy(14)
    files = []
    for place, image in enumerate(images):
        files.append(tmp_path / f"{place}.png")
        to_picture(image).save(files[-1])
    files[3].write_bytes(b"no picture")
    table = tmp_path / "mine.csv"
    table.write_text(
        "".join(
            f"{file.name},{rating},{place}\n" for place, (file, rating) in enumerate(zip(files, ratings, strict=True))
        )
    )
    fit = fit_rated(features, Pictures.of_csv(table), curve=False)
    assert list(fit.left_out) == [3]
    assert "3.png" in fit.left_out[3]
    assert fit.head.meta.pictures == 13


def test_the_cost_is_what_the_formula_says(backbone, options):
    guidance = GuidanceOptions(timesteps=(90, 60, 30))
    guided = replace(options, kind="guided_path", guidance=guidance, psi="judge", views=("crops", "whole"))
    psi = type("Psi", (), {"identity": "x", "name": "judge", "space": "pixels", "through_denoiser": False})()
    found = cost_of(Hyperfeatures(backbone, guided, psi), [(64, 64), (128, 64), (10, 10)])
    assert found.pictures == 3
    assert found.views == 1 + 3 + 2
    assert found.denoiser == 6 * 3
    assert found.decoder == 6 * 2 * 2
    assert found.psi == 6 * 2
    assert "12 forwards and backwards of psi" in found.to_text()
    own = type("Psi", (), {"identity": "x", "name": "ldm", "space": "latent", "through_denoiser": True})()
    found = cost_of(Hyperfeatures(backbone, replace(guided, psi="ldm"), own), [(64, 64), (8, 600)])
    assert (found.terms, found.decoder, found.psi) == (1, 2, 2)  # the second picture is too long: no views
    assert "2 forwards and backwards of the denoiser for psi" in found.to_text()
    plain = cost_of(Hyperfeatures(backbone, options), [(64, 64)])
    assert (plain.decoder, plain.psi, plain.denoiser) == (0, 0, 2)
    assert sizes_of([torch.zeros(3, 5, 7)]) == [(5, 7)]
    assert remaining(10.0, 10, 40) == "30 s"
    assert remaining(60.0, 1, 31) == "30 min"


def test_the_curve_is_drawn(features, rated, tmp_path):
    fit = fit_rated(features, rated)
    plot_curve(fit, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="learning curve"):
        plot_curve(replace(fit, curve=()), tmp_path / "none.png")


def test_what_cannot_be_fitted_is_refused(features, noisy):
    images, ratings = noisy(12)
    with pytest.raises(BadInput, match="ratings"):
        fit_rated(features, Pictures.of_tensors("x", images, None))
    with pytest.raises(BadInput, match="12 ratings"):
        Pictures.of_tensors("x", images, ratings[:5])
    with pytest.raises(BadInput, match="0 to 100"):
        Pictures.of_tensors("x", images, [101.0] * 12)
    with pytest.raises(BadInput, match="at least 10"):
        fit_rated(features, Pictures.of_tensors("x", images[:5], ratings[:5]))
    with pytest.raises(BadInput, match="at least 4"):
        fit_unrated(features, Pictures.of_tensors("x", images[:2], None))
