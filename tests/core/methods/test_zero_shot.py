"""zero_shot on a tiny plain-torch denoiser: parity with a slow float64 re-derivation, and the ladder of properties."""

import json
import math

import pytest
import torch
from latent_critic.core.backbone.schedule import sigma_of_timestep
from latent_critic.core.errors import BadInput
from latent_critic.core.methods.contract import Scorer
from latent_critic.core.methods.zero_shot import DEFAULT_PAIRS, ZeroShot, ZeroShotOptions
from latent_critic.core.records import ScoreSpec
from latent_critic.core.taps.recorder import Recorder
from latent_critic.core.taps.reducers import full

NOISE_ONLY = ZeroShotOptions(attention_weight=0.0)
ATTENTION_ONLY = ZeroShotOptions(noise_weight=0.0)


def pictures(*sizes, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, h, w, generator=generator) for h, w in sizes]


def slowly(backbone, image, pairs, timesteps=(21, 57, 93), temperature=0.14):
    """The score of one 64×64 image by loops in float64, one row at a time: (noise term, attention term)."""
    z = backbone.encode(image[None])
    noise, attention = [], []
    for pair in pairs:
        for t in timesteps:
            eps = backbone.noise(z.shape[1:], t)[None]
            sigma = sigma_of_timestep(t, backbone.prediction)
            flow = backbone.prediction == "flow"
            z_t = (1 - sigma) * z + sigma * eps if flow else z + sigma * eps
            error, answer = [], []
            for prompt in pair:
                taps = [tap for tap in backbone.family.taps if tap.kind == "attention"]
                recorder = Recorder.of(taps, full)
                x0 = backbone.denoise(z_t, torch.tensor([sigma]), backbone.embed([prompt]), recorder).double()
                clean_share = (1 - sigma) if flow else 1.0
                eps_hat = (z_t.double() - clean_share * x0) / sigma
                squares = [
                    (a - b) ** 2 for a, b in zip(eps.flatten().tolist(), eps_hat.flatten().tolist(), strict=True)
                ]
                error.append(math.sqrt(math.fsum(squares) / len(squares)))
                answer.append(_alignment(recorder, taps, temperature))
            noise.append(error[1] - error[0])
            attention.append(answer[0] - answer[1])
    return math.fsum(noise) / len(noise), math.fsum(attention) / len(attention)


def _alignment(recorder, taps, temperature):
    layers = []
    for tap in taps:
        logits = recorder.rows(tap.name)[0].value.double().tolist()
        heads, queries, tokens = len(logits), len(logits[0]), len(logits[0][0])
        values = [
            (math.log(math.fsum(math.exp(temperature * logits[h][q][k]) for q in range(queries))) - math.log(queries))
            / temperature
            for h in range(heads)
            for k in range(tokens)
        ]
        layers.append(math.fsum(values) / len(values))
    return math.fsum(layers) / len(layers)


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
def test_parity_with_a_slow_derivation(backbone, prediction):
    model = backbone(prediction)
    (image,) = pictures((64, 64))
    with torch.no_grad():
        noise, attention = slowly(model, image, DEFAULT_PAIRS)
    score = ZeroShot(model).score([image])[0]
    assert score.attributes["noise"] == pytest.approx(noise, abs=2e-6)
    assert score.attributes["attention"] == pytest.approx(attention, abs=2e-6)
    assert score.value == pytest.approx(128 * noise + attention, abs=2e-4)
    assert abs(noise) > 1e-5
    assert abs(attention) > 1e-4


@pytest.mark.parametrize("options", [None, NOISE_ONLY, ATTENTION_ONLY], ids=["both", "noise", "attention"])
def test_swapping_good_and_bad_negates(backbone, options):
    images = pictures((64, 64), (40, 90))
    pairs = [("one text", "another")]
    there = ZeroShot(backbone(), pairs, options).score(images).values()
    back = ZeroShot(backbone(), [pair[::-1] for pair in pairs], options).score(images).values()
    assert back == pytest.approx([-value for value in there], abs=1e-5)
    assert all(abs(value) > 1e-5 for value in there)


@pytest.mark.parametrize("fit", [1, 5, 12, 13, 1000])
def test_batch_mates_and_chunks_change_nothing(backbone, fit):
    images = pictures((64, 64), (100, 50), (64, 64), (128, 128))
    model = backbone(fit=fit)
    together = ZeroShot(model).score(images).values()
    alone = [ZeroShot(backbone()).score([image]).values()[0] for image in images]
    assert together == pytest.approx(alone, abs=1e-4)
    assert max(model.rows) <= fit


def test_as_few_forwards_as_fit(backbone):
    model = backbone()
    options = ZeroShotOptions(most_rows=24)
    ZeroShot(model, options=options).score(pictures(*[(64, 64)] * 4))
    assert model.calls["denoise"] == 2  # 4 images × 2 pairs × 2 prompts × 3 levels = 48 rows
    assert model.calls["encode"] == 2


def test_deterministic_and_texts_embedded_once(backbone):
    model = backbone()
    scorer = ZeroShot(model)
    images = pictures((64, 64), (64, 64))
    assert scorer.score(images).values() == scorer.score(images).values()
    assert model.calls["embed"] == 1


def test_the_seed_and_only_the_seed_draws_the_noise(backbone):
    images = pictures((64, 64))
    values = {seed: ZeroShot(backbone(), options=ZeroShotOptions(seed=seed)).score(images)[0].value for seed in (0, 1)}
    torch.manual_seed(99)
    assert ZeroShot(backbone()).score(images)[0].value == values[0]
    assert values[0] != values[1]


def test_attention_alone_ends_early_and_noise_alone_reads_no_taps(backbone):
    model = backbone()
    ZeroShot(model, options=ATTENTION_ONLY).score(pictures((64, 64)))
    assert (model.calls["features"], model.calls["denoise"]) == (1, 0)
    model = backbone(silent=("down.0.0", "up.0.0"))
    score = ZeroShot(model, options=NOISE_ONLY).score(pictures((64, 64)))[0]
    assert score.ok
    assert "attention" not in score.attributes


@pytest.mark.parametrize("shape", [(64, 64), (32, 128), (200, 40), (512, 512)])
def test_constant_attention_scores_alike_at_each_size(backbone, shape):
    """The offset ln(N_queries) is gone: with logits that do not depend on the query only the texts count."""
    model = backbone()
    for layer in model.unet.q:
        layer.weight.data.zero_()
        layer.bias.data.fill_(1.0)
    reference = ZeroShot(model, options=ATTENTION_ONLY).score(pictures((64, 64)))[0].value
    found = ZeroShot(model, options=ATTENTION_ONLY).score(pictures(shape))[0]
    assert found.value == pytest.approx(reference, abs=1e-5)
    assert abs(reference) > 1e-3


def test_half_precision_stays_near(backbone):
    images = pictures((64, 64), (64, 64))
    whole = ZeroShot(backbone(), options=ATTENTION_ONLY).score(images).values()
    half = ZeroShot(backbone(dtype=torch.bfloat16), options=ATTENTION_ONLY).score(images).values()
    assert half == pytest.approx(whole, abs=0.02)


def test_broken_images_do_not_hurt_the_others(backbone):
    good, other = pictures((64, 64), (64, 64))
    nan = torch.full((3, 64, 64), math.nan)
    batch = ZeroShot(backbone()).score([good, nan, torch.rand(3, 8, 900), torch.rand(3, 1, 1), other, other * 255])
    assert [score.ok for score in batch] == [True, False, False, False, True, False]
    assert "NaN" in batch[1].reason
    assert "16:1" in batch[2].reason
    assert batch[0].value == pytest.approx(ZeroShot(backbone()).score([good])[0].value, abs=1e-4)
    assert [score.index for score in batch] == [0, 1, 2, 3, 4, 5]


def test_all_broken_runs_no_forward(backbone):
    model = backbone()
    batch = ZeroShot(model).score([torch.full((3, 64, 64), math.inf)])
    assert not batch[0].ok
    assert not model.rows


def test_a_nan_latent_and_a_nan_output_are_reasons(backbone, monkeypatch):
    images = pictures((64, 64), (64, 64))
    model = backbone()
    clean = model.encode

    def broken(pixels, **rest):
        z = clean(pixels, **rest)
        z[0, 0, 0, 0] = math.nan
        return z

    monkeypatch.setattr(model, "encode", broken)
    batch = ZeroShot(model).score(images)
    assert "VAE" in batch[0].reason
    assert batch[1].value == pytest.approx(ZeroShot(backbone()).score(images)[1].value, abs=1e-4)
    model = backbone()
    model.unet.outside.bias.data.fill_(math.nan)
    assert "half precision" in ZeroShot(model).score(images)[0].reason


def test_silent_taps_are_a_warning_and_then_a_reason(backbone):
    images = pictures((64, 64))
    score = ZeroShot(backbone(silent=("up.0.0",))).score(images)[0]
    assert "up.0.0" in score.attributes["warnings"][0]
    score = ZeroShot(backbone(silent=("up.0.0", "down.0.0"))).score(images)[0]
    assert not score.ok
    assert "up.0.0" in score.reason


def test_watch_counts_forwards_and_an_interrupt_leaves_at_once(backbone):
    seen, model = [], backbone(fit=12)
    ZeroShot(model).score(pictures((64, 64), (64, 64), (32, 96)), watch=lambda *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    def stop(done, total):
        raise KeyboardInterrupt

    model = backbone(fit=12)
    with pytest.raises(KeyboardInterrupt):
        ZeroShot(model).score(pictures((64, 64), (64, 64)), watch=stop)
    assert model.calls["denoise"] == 1


def test_spec_is_uncalibrated_and_says_all_that_changes_a_value(backbone):
    scorer = ZeroShot(backbone(), [("a", "b")], ZeroShotOptions(side=128))
    spec = scorer.spec
    assert isinstance(scorer, Scorer)
    assert not spec.calibrated
    assert spec.scale is None
    assert spec.backbone.startswith("lc1:tiny")
    assert spec.settings["pairs"] == [["a", "b"]]
    assert spec.settings["timesteps"] == [21, 57, 93]
    assert spec.settings["taps"] == ["down.0.0", "up.0.0"]
    assert spec.settings["sigmas"] == pytest.approx([sigma_of_timestep(t) for t in (21, 57, 93)])
    assert "not measured" in spec.settings["centre_and_spread"]
    assert "128×128" in spec.size_policy
    assert "hands" in spec.blind_to
    assert (
        "." not in spec.blind_to
    )  # a list of nouns: "It does not see: …" begins the sentence, and its full stop ends it
    assert ScoreSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    json.dumps(scorer.score(pictures((64, 64))).to_dict())


@pytest.mark.parametrize(
    "pairs",
    [(), "good|bad", [("good",)], [("a", "b", "c")], ["ab"], [("same", " same ")], [("a", 3)], [None]],
    ids=repr,
)
def test_bad_pairs(backbone, pairs):
    with pytest.raises(BadInput, match="Expected"):
        ZeroShot(backbone(), pairs)


@pytest.mark.parametrize(
    "options",
    [
        {"timesteps": ()},
        {"timesteps": (5, 5)},
        {"timesteps": (1000,)},
        {"noise_weight": -1.0},
        {"noise_weight": 0.0, "attention_weight": 0.0},
        {"attention_weight": math.nan},
        {"temperature": 0.0},
        {"most_rows": 0},
        {"side": 8},
        {"spread": 0.0},
    ],
    ids=repr,
)
def test_bad_options(options):
    with pytest.raises(BadInput, match="Expected"):
        ZeroShotOptions(**options)


def test_bad_taps_prompts_and_images(backbone):
    with pytest.raises(BadInput, match=r"up\.9"):
        ZeroShot(backbone(), options=ZeroShotOptions(taps=("up.9",)))
    with pytest.raises(BadInput, match="2 prompts"):
        ZeroShot(backbone()).score(pictures((64, 64), (64, 64)), ["one"])
    with pytest.raises(BadInput, match="at least one image"):
        ZeroShot(backbone()).score([])
