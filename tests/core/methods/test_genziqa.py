"""GenzIQA on a tiny plain-torch denoiser: parity with a slow float64 re-derivation, and the ladder of properties."""

import json
import math
from dataclasses import replace

import pytest
import torch
from latent_critic.core.backbone.adaptation import CrossLora
from latent_critic.core.backbone.schedule import sigma_of_timestep
from latent_critic.core.errors import BadInput, MismatchedBackbone
from latent_critic.core.methods.contract import Scorer
from latent_critic.core.methods.genziqa import GenzIQA
from latent_critic.core.methods.genziqa_head import untrained
from latent_critic.core.methods.genziqa_settings import FAST, PUBLISHED, GenzIQAOptions, GenzSettings
from latent_critic.core.records import ScoreSpec
from latent_critic.core.taps.recorder import Recorder
from latent_critic.core.taps.reducers import full

QUICK = GenzSettings(timesteps=(9, 57))


def pictures(*sizes, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, h, w, generator=generator) for h, w in sizes]


def make_head(model, settings=QUICK, rank=2, **rest):
    """A head whose LoRA and context do something."""
    head = untrained(model, settings, context=3, rank=rank, **rest)
    generator = torch.Generator().manual_seed(7)
    for _, up in head.lora.layers.values():
        up.copy_(0.3 * torch.randn(up.shape, generator=generator))
    for vectors in head.prompts.context.values():
        vectors.mul_(30)
    return head


def trained(head, **meta):
    facts = {"scale": (0.0, 100.0), "calibrated_on": "photographs", "training_set": "a set", "pictures": 9, **meta}
    return replace(head, meta=replace(head.meta, **facts))


def slowly(model, image, head, timesteps):
    """Raw value of one 64×64 image by loops in float64, one row at a time."""
    adapted, settings = model.adapted(head.lora), head.settings
    conditioning = model.embed_soft(head.prompts)
    z = model.encode(image[None])
    raw = []
    for t in timesteps:
        eps = model.noise(z.shape[1:], settings.seed + t)[None]
        sigma = sigma_of_timestep(t, model.prediction)
        flow = model.prediction == "flow"
        z_t = (1 - sigma) * z + sigma * eps if flow else z + sigma * eps
        errors, answers = [], []
        for row in (0, 1):
            taps = [tap for tap in model.family.taps if tap.kind == "attention"]
            recorder = Recorder.of(taps, full)
            x0 = adapted.denoise(z_t, torch.tensor([sigma]), conditioning.rows([row]), recorder).double()
            eps_hat = (z_t.double() - ((1 - sigma) if flow else 1.0) * x0) / sigma
            squares = [(a - b) ** 2 for a, b in zip(eps.flatten().tolist(), eps_hat.flatten().tolist(), strict=True)]
            errors.append(math.sqrt(math.fsum(squares) / len(squares)))
            answers.append(soft_maxima(recorder, taps, settings.temperature))
        attention = answers[0] - answers[1] if settings.contrast else (answers[0] + answers[1]) / 2
        raw.append(attention + settings.bias_weight * (errors[0] - errors[1]))
    return math.fsum(raw) / len(raw)


def soft_maxima(recorder, taps, temperature):
    layers = []
    for tap in taps:
        logits = recorder.rows(tap.name)[0].value.double().tolist()
        values = []
        for of_head in logits:
            for token in range(len(of_head[0])):
                total = math.fsum(math.exp(temperature * query[token]) for query in of_head)
                values.append((math.log(total) - math.log(len(of_head))) / temperature)
        layers.append(math.fsum(values) / len(values))
    return math.fsum(layers) / len(layers)


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"bias_weight": 0.0}, {"bias_weight": -1.0, "contrast": True}, {"temperature": 1.0, "bias_weight": 2.0}],
    ids=str,
)
def test_parity_with_a_slow_derivation(backbone, prediction, changes):
    model = backbone(prediction)
    head = make_head(model, GenzSettings(**{"timesteps": (9, 57), "bias_weight": 1.0, **changes}))
    (image,) = pictures((64, 64))
    with torch.no_grad():
        expected = slowly(model, image, head, (9, 57))
    score = GenzIQA(model, head).score([image])[0]
    assert score.attributes["raw"] == pytest.approx(expected, abs=1e-6)
    assert abs(expected) > 1e-3


def test_published_scale_of_the_bias(backbone):
    """At 512² the published bias is a difference of plain norms over 4·64·64 values: 128 times that of rms."""
    model = backbone()
    head = make_head(model, GenzSettings(timesteps=(9,), side=512, square=True))
    score = GenzIQA(model, head).score(pictures((512, 512)))[0]
    conditioning, adapted = model.embed_soft(head.prompts), model.adapted(head.lora)
    z, sigma = model.encode(pictures((512, 512))[0][None]), torch.tensor([sigma_of_timestep(9)])
    eps = model.noise(z.shape[1:], 9)[None]
    norms = []
    with torch.no_grad():
        for row in (0, 1):
            x0 = adapted.denoise(z + sigma * eps, sigma, conditioning.rows([row]))
            norms.append(float((eps - (z + sigma * eps - x0) / sigma).double().flatten().norm()))
    assert 128.0 * score.attributes["bias"] == pytest.approx(norms[0] - norms[1], abs=1e-3)


@pytest.mark.parametrize("shape", [(64, 64), (32, 128), (200, 40), (512, 512)])
def test_a_constant_attention_model_scores_alike_at_each_size(backbone, shape):
    model = backbone()
    for layer in model.unet.q:
        layer.weight.data.zero_()
        layer.bias.data.fill_(1.0)
    values = []
    for side in (64, 256):
        head = make_head(model, GenzSettings(timesteps=(9, 57), bias_weight=0.0, side=side), rank=0)
        values.append(GenzIQA(model, head).score(pictures((64, 64)))[0].value)
        values.append(GenzIQA(model, head).score(pictures(shape))[0].value)
    assert values == pytest.approx([values[0]] * 4, abs=1e-5)
    assert abs(values[0]) > 1e-3


@pytest.mark.parametrize("fit", [1, 3, 4, 5, 1000])
def test_batch_mates_and_chunks_change_nothing(backbone, fit):
    images = pictures((64, 64), (100, 50), (64, 64), (128, 128))
    model = backbone(fit=fit)
    head = make_head(model)
    together = GenzIQA(model, head).score(images).values()
    alone = [GenzIQA(backbone(), head).score([image]).values()[0] for image in images]
    assert together == pytest.approx(alone, abs=1e-4)
    assert max(model.rows) <= fit


def test_both_prompts_and_all_levels_in_one_forward(backbone):
    model = backbone()
    scorer = GenzIQA(model, make_head(model, GenzSettings()))
    scorer.score(pictures((64, 64), (64, 64)))
    assert model.rows == [2 * 2 * len(PUBLISHED)]
    assert model.calls == {"encode": 1, "embed": 0, "denoise": 1, "features": 0}


def test_fewer_levels_and_no_bias_end_early(backbone):
    model = backbone()
    head = make_head(model, GenzSettings())
    scorer = GenzIQA(model, head, GenzIQAOptions(timesteps=FAST, bias=False))
    score = scorer.score(pictures((64, 64)))[0]
    assert model.rows == [2 * len(FAST)]
    assert (model.calls["features"], model.calls["denoise"]) == (1, 0)
    assert score.attributes["bias"] == 0.0
    assert len(score.attributes["levels"]) == len(FAST)


def test_the_mean_of_levels_is_the_score(backbone):
    model = backbone()
    head = make_head(model).with_settings(gain=2.5, offset=40.0)
    score = GenzIQA(model, head).score(pictures((64, 64)))[0]
    assert score.value == pytest.approx(sum(score.attributes["levels"]) / 2)
    assert score.value == pytest.approx(40.0 + 2.5 * score.attributes["raw"])


def test_the_noise_bank_is_the_seeds_alone(backbone):
    model, (image,) = backbone(), pictures((64, 64))
    values = {}
    for seed in (0, 5):
        head = make_head(model, GenzSettings(timesteps=(9, 57), seed=seed))
        values[seed] = GenzIQA(model, head).score([image])[0].value
        torch.manual_seed(99)
        assert GenzIQA(model, head).score([image])[0].value == values[seed]
    assert values[0] != values[5]


def test_spec_of_a_trained_head_is_calibrated_and_says_everything(backbone):
    model = backbone()
    scorer = GenzIQA(model, trained(make_head(model).with_settings(offset=50.0)))
    spec = scorer.spec
    assert isinstance(scorer, Scorer)
    assert spec.calibrated
    assert spec.scale == (0.0, 100.0)
    assert spec.settings["timesteps"] == [9, 57]
    assert spec.settings["seed"] == 0
    assert "." not in spec.blind_to
    assert ScoreSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    other = trained(make_head(model, seed=1).with_settings(offset=50.0))
    assert GenzIQA(model, other).spec.digest != spec.digest
    json.dumps(scorer.score(pictures((64, 64))).to_dict())


def test_scores_stay_on_the_scale(backbone):
    model = backbone()
    head = trained(make_head(model).with_settings(offset=1e4))
    assert GenzIQA(model, head).score(pictures((64, 64)))[0].value == 100.0


def test_an_untrained_head_ranks_only(backbone):
    model = backbone()
    assert not GenzIQA(model, make_head(model)).spec.calibrated


def test_without_the_bias_that_it_was_trained_with_it_ranks_only(backbone):
    model = backbone()
    scorer = GenzIQA(model, trained(make_head(model)), GenzIQAOptions(bias=False))
    assert not scorer.spec.calibrated
    assert "switched off" in scorer.score(pictures((64, 64)))[0].attributes["warnings"][0]
    without = trained(make_head(model, GenzSettings(bias_weight=0.0)))
    assert GenzIQA(model, without, GenzIQAOptions(bias=False)).spec.calibrated


def test_at_other_levels_than_those_fitted_at_it_ranks_only(backbone):
    model = backbone()
    head = trained(make_head(model))
    scorer = GenzIQA(model, head, GenzIQAOptions(timesteps=(9,)))
    assert not scorer.spec.calibrated
    assert "noise levels" in scorer.score(pictures((64, 64)))[0].attributes["warnings"][0]
    assert GenzIQA(model, head, GenzIQAOptions(timesteps=(57, 9))).spec.calibrated


@pytest.mark.parametrize("choice", [{"bias": False}, {"timesteps": (9,)}], ids=repr)
def test_choices_that_nothing_was_fitted_for_have_no_centre_and_spread(backbone, choice):
    model = backbone()
    head = trained(make_head(model), centre=60.0, spread=3.0)
    assert (GenzIQA(model, head).spec.centre, GenzIQA(model, head).spec.spread) == (60.0, 3.0)
    spec = GenzIQA(model, head, GenzIQAOptions(**choice)).spec
    assert (spec.centre, spec.spread) == (0.0, 1.0)


def test_levels_that_were_fitted_too_keep_the_scale_by_their_own_gain(backbone):
    from latent_critic.core.methods.blend import blend

    model = backbone()
    told = [{"timesteps": [9], "gain": 2.0, "offset": 30.0, "centre": 41.0, "spread": 7.0}]
    head = trained(make_head(model).with_settings(gain=0.5, offset=50.0), centre=60.0, spread=3.0)
    head = trained(head, settings={**head.meta.settings, "readouts": told}, centre=60.0, spread=3.0)
    own, few = GenzIQA(model, head), GenzIQA(model, head, GenzIQAOptions(timesteps=(9,)))
    assert few.spec.calibrated
    assert not few.warnings
    assert [(one.spec.centre, one.spec.spread) for one in (own, few)] == [(60.0, 3.0), (41.0, 7.0)]
    assert (few.spec.settings["gain"], few.spec.settings["offset"]) == (2.0, 30.0)
    score = few.score(pictures((64, 64)))[0]
    assert score.value == pytest.approx(min(max(30.0 + 2.0 * score.attributes["raw"], 0.0), 100.0))
    open_ended = GenzIQA(model, replace(head, meta=replace(head.meta, scale=None, calibrated_on=None)), few._options)
    batch = open_ended.score(pictures((64, 64)))
    assert blend([batch])[0].value == pytest.approx((batch[0].value - 41.0) / 7.0)


def test_a_silent_layer_is_a_reason_where_there_is_a_scale(backbone):
    model = backbone(silent=("up.0.0",))
    head = make_head(model)
    assert GenzIQA(model, head).score(pictures((64, 64)))[0].attributes["warnings"]
    assert "up.0.0" in GenzIQA(model, trained(head)).score(pictures((64, 64)))[0].reason


def test_another_checkpoint_is_refused_and_may_be_overridden(backbone):
    from latent_critic.core.backbone.fingerprint import Fingerprint

    model, other = backbone(), backbone()
    other.fingerprint = Fingerprint("tiny", (0.5, 0.5))
    head = trained(make_head(model))
    with pytest.raises(MismatchedBackbone, match="fingerprint"):
        GenzIQA(other, head)
    scorer = GenzIQA(other, head, GenzIQAOptions(override=True))
    assert not scorer.spec.calibrated
    assert "without a scale" in scorer.score(pictures((64, 64)))[0].attributes["warnings"][0]


def test_a_head_of_another_kind_or_rank_is_refused(backbone):
    model = backbone()
    head = make_head(model)
    with pytest.raises(MismatchedBackbone, match="kind"):
        GenzIQA(model, replace(head, meta=replace(head.meta, kind="probe")))
    with pytest.raises(MismatchedBackbone, match="family"):
        GenzIQA(model, replace(head, meta=replace(head.meta, family="sd15")))
    where, (down, up) = next(iter(head.lora.layers.items()))
    layers = {**head.lora.layers, where: (down[:1], up[:, :1])}
    with pytest.raises(BadInput, match="share one rank"):
        GenzIQA(model, replace(head, lora=CrossLora(layers)))
    layers = {**head.lora.layers, ("mid.0", "q"): (down, up)}
    with pytest.raises(MismatchedBackbone, match=r"mid\.0 q"):
        GenzIQA(model, replace(head, lora=CrossLora(layers)))


def test_a_model_without_text_conditioning_is_refused(backbone):
    model = backbone()
    head = make_head(model)
    model.family = replace(model.family, taps=tuple(tap for tap in model.family.taps if tap.kind == "feature"))
    with pytest.raises(BadInput, match="without text cross-attention"):
        GenzIQA(model, head)
    with pytest.raises(BadInput, match="without text cross-attention"):
        untrained(model)


def test_broken_images_do_not_hurt_the_others(backbone):
    good, other = pictures((64, 64), (64, 64))
    nan = torch.full((3, 64, 64), math.nan)
    model = backbone()
    head = make_head(model)
    batch = GenzIQA(model, head).score([good, nan, torch.rand(3, 8, 900), other])
    assert [score.ok for score in batch] == [True, False, False, True]
    assert batch[0].value == pytest.approx(GenzIQA(model, head).score([good])[0].value, abs=1e-4)


def test_nan_in_the_model_is_a_reason(backbone):
    model = backbone()
    head = make_head(model)
    model.unet.q[0].bias.data.fill_(math.nan)
    assert "half precision" in GenzIQA(model, head).score(pictures((64, 64)))[0].reason


def test_from_latents_as_from_their_image(backbone):
    model = backbone()
    scorer = GenzIQA(model, make_head(model))
    images = pictures((64, 64), (64, 64))
    latents = model.encode(torch.stack(images))
    assert scorer.score_latents(latents).values() == pytest.approx(scorer.score(images).values(), abs=1e-4)
    with pytest.raises(BadInput, match="latents"):
        scorer.score_latents(torch.zeros(1, 3, 8, 8))


def test_latents_of_another_size_rank_only(backbone):
    model = backbone()
    scorer = GenzIQA(model, trained(make_head(model).with_settings(offset=1e4)))
    (latent,) = model.encode(torch.stack(pictures((64, 64))))
    assert scorer.score_latents(latent[None]).spec.calibrated
    batch = scorer.score_latents(torch.cat([latent, latent], 2)[None])
    assert not batch.spec.calibrated
    assert "another size" in batch[0].attributes["warnings"][0]
    assert batch[0].value > 100.0
    square = GenzIQA(model, trained(make_head(model, GenzSettings(timesteps=(9, 57), side=96, square=True))))
    assert not square.score_latents(latent[None]).spec.calibrated


def test_latents_are_refused_where_the_head_normalises_pixels(backbone):
    model = backbone()
    scorer = GenzIQA(model, make_head(model, GenzSettings(timesteps=(9,), value_range="clip")))
    with pytest.raises(BadInput, match="score the images"):
        scorer.score_latents(torch.zeros(1, 4, 8, 8))
    assert scorer.score_encoded(torch.zeros(1, 4, 8, 8))[0].ok


def test_clips_normalisation_reaches_the_vae(backbone, monkeypatch):
    model, seen = backbone(), []
    encode = model.encode
    monkeypatch.setattr(
        model, "encode", lambda pixels, **rest: seen.append((pixels, rest)) or encode(pixels.clamp(0, 1))
    )
    head = make_head(model, GenzSettings(timesteps=(9,), value_range="clip"))
    GenzIQA(model, head).score([torch.full((3, 64, 64), 0.48145466)])
    pixels, rest = seen[0]
    assert rest == {"value_range": (0.0, 1.0)}
    assert pixels[0, 0].abs().max() < 1e-6
    assert float(pixels[0, 1, 0, 0]) == pytest.approx((0.48145466 - 0.4578275) / 0.26130258, abs=1e-5)


def test_a_square_is_a_square(backbone):
    model = backbone()
    for square, sizes in ((True, (64, 64)), (False, (48, 88))):
        head = make_head(model, GenzSettings(timesteps=(9,), square=square))
        found = GenzIQA(model, head).score(pictures((60, 110)))[0].attributes
        assert (found["height"], found["width"]) == sizes


@pytest.mark.parametrize(
    "options",
    [
        {"timesteps": ()},
        {"timesteps": (5, 5)},
        {"timesteps": (1000,)},
        {"timesteps": (1.5,)},
        {"temperature": 0.0},
        {"bias_weight": math.nan},
        {"gain": 0.0},
        {"value_range": "tv"},
        {"side": 8},
    ],
    ids=repr,
)
def test_bad_settings(options):
    with pytest.raises(BadInput, match="Expected"):
        GenzSettings(**options)


@pytest.mark.parametrize("options", [{"timesteps": (3, 3)}, {"most_rows": 0}], ids=repr)
def test_bad_options(options):
    with pytest.raises(BadInput, match="Expected"):
        GenzIQAOptions(**options)


@pytest.mark.parametrize("options", [{"context": -1}, {"rank": -1}, {"words": ("one",)}], ids=repr)
def test_bad_heads(backbone, options):
    with pytest.raises(BadInput, match="Expected"):
        untrained(backbone(), **options)


def test_as_many_prompts_as_images(backbone):
    model = backbone()
    with pytest.raises(BadInput, match="2 prompts"):
        GenzIQA(model, make_head(model)).score(pictures((64, 64), (64, 64)), ["one"])
