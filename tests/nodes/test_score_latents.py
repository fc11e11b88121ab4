"""Score Latents: from the latents where the scorer can, through a VAE where it looks at images; companions stay."""

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def zero_shot(pack, tiny, tiny_clip, tiny_vae):
    """A scorer on the tiny model of a family, counting what it asks of its VAE."""
    method = pack("core.methods.zero_shot")
    backbone = pack("core.hosts.comfyui.backbone").ComfyBackbone

    def build(family="sd15"):
        model = tiny.model(family)
        return method.ZeroShot(
            backbone(model, tiny_clip(family), tiny_vae(0)), options=method.ZeroShotOptions(side=64)
        ), model

    return build


@pytest.fixture
def latents():
    def make(count=3, seed=0, **more):
        return {"samples": torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) * 3, **more}

    return make


@pytest.mark.parametrize("family", ["sd15", "sd20", "sdxl"])
def test_a_scorer_on_the_model_starts_from_the_latents(run_node, zero_shot, latents, family, monkeypatch, tiny_vae):
    scorer, model = zero_shot(family)
    given = latents()
    expected = scorer.score_latents(model.model.process_latent_in(given["samples"])).values()
    for name in ("encode", "decode"):
        monkeypatch.setattr(type(tiny_vae(0)), name, lambda *args, **named: pytest.fail("the VAE was used"))
    run = run_node("LatentCriticScoreLatents", {"keep": 1}, latents=[given], scorer=[scorer])
    assert run.success, run.error
    assert run.kept["scores"][0].values() == pytest.approx(expected, abs=1e-5)
    assert run.kept["best_index"] == [max(range(3), key=lambda place: expected[place])]


def test_other_scorers_get_the_decoded_images(run_node, scorer, latents, tiny_vae):
    given, vae = latents(), tiny_vae(0)
    with torch.inference_mode():
        expected = [100 * float(image.mean()) for image in vae.decode(given["samples"])]
    run = run_node("LatentCriticScoreLatents", {"keep": 2}, latents=[given], scorer=[scorer()], vae=[vae])
    assert run.success, run.error
    assert run.kept["scores"][0].values() == pytest.approx(expected, abs=1e-3)


def test_the_built_in_judge_is_the_default(run_node, latents, tiny_vae):
    run = run_node("LatentCriticScoreLatents", {"keep": 1}, latents=[latents()], vae=[tiny_vae(0)])
    assert run.success, run.error
    assert run.kept["scores"][0].spec.name == "judge"
    assert "built-in judge" in run.ui["text"][0]


def test_without_a_vae_a_scorer_of_images_is_one_clear_error(run_node, scorer, latents):
    run = run_node("LatentCriticScoreLatents", {"keep": 1}, latents=[latents()], scorer=[scorer()])
    assert not run.success
    assert "a VAE, since this scorer looks at images" in run.error


def test_companions_go_with_their_latents(run_node, zero_shot, latents):
    scorer, _ = zero_shot()
    masks = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    given = latents(4, noise_mask=masks, batch_index=[7, 5, 3, 1], note="kept")
    run = run_node("LatentCriticScoreLatents", {"keep": 2}, latents=[given], scorer=[scorer])
    values = run.kept["scores"][0].values()
    order = sorted(range(4), key=lambda place: -values[place])
    for output, places in (("best_latents", order[:2]), ("rest_latents", order[2:])):
        (out,) = run.kept[output]
        assert torch.equal(out["samples"], given["samples"][places])
        assert out["batch_index"] == [given["batch_index"][place] for place in places]
        assert out["noise_mask"][:, 0, 0, 0].tolist() == [float(place) for place in places]
        assert out["note"] == "kept"


def test_a_list_of_batches_counts_on(run_node, zero_shot, latents):
    scorer, _ = zero_shot()
    a, b = latents(2), {"samples": torch.randn(1, 4, 8, 12)}
    run = run_node("LatentCriticScoreLatents", {"keep": 1}, latents=[a, b], scorer=[scorer], seeds=[4, 5, 6])
    assert run.success, run.error
    scores = run.kept["scores"][0]
    assert [score.index for score in scores] == [0, 1, 2]
    assert [score.seed for score in scores] == [4, 5, 6]
    shapes = [tuple(out["samples"].shape) for out in run.kept["best_latents"] + run.kept["rest_latents"]]
    assert sorted(shapes) == [(1, 4, 8, 8), (1, 4, 8, 8), (1, 4, 8, 12)]


def test_a_latent_of_nan_is_a_reason(run_node, zero_shot, latents):
    scorer, _ = zero_shot()
    given = latents()
    given["samples"][1] = float("nan")
    run = run_node("LatentCriticScoreLatents", {"keep": 3}, latents=[given], scorer=[scorer])
    assert [score.ok for score in run.kept["scores"][0]] == [True, False, True]
    assert run.kept["all_scored"] == [False]
    assert len(run.kept["best_latents"][0]["samples"]) == 2


@pytest.mark.parametrize("wrong", [[], [{"samples": torch.zeros(0, 4, 8, 8)}], ["no latent"], [{"sample": 1}]])
def test_no_latents_are_one_clear_error(run_node, zero_shot, wrong):
    run = run_node("LatentCriticScoreLatents", {"keep": 1}, latents=wrong, scorer=[zero_shot()[0]])
    assert not run.success
    assert "LATENT" in run.error or "latent" in run.error


def test_latents_of_another_family_are_one_clear_error(run_node, zero_shot):
    given = {"samples": torch.zeros(2, 16, 8, 8)}
    run = run_node("LatentCriticScoreLatents", {"keep": 1}, latents=[given], scorer=[zero_shot()[0]])
    assert "latents [N, 4, h, w]" in run.error
