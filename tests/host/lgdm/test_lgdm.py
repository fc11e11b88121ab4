"""lgdm through a real ComfyUI: tiny models of every U-Net family and the embedded model."""

import sys
from dataclasses import replace

import pytest
import torch

pytestmark = pytest.mark.host
FAMILIES = ["sd15", "sd20", "sd20_v", "sdxl"]


def pictures(*sizes):
    draw = torch.Generator().manual_seed(3)
    return [torch.rand(3, h, w, generator=draw) for h, w in sizes]


@pytest.mark.parametrize("family", [*FAMILIES, "critic_ldm"])
def test_a_fitted_head_scores_damage_and_batch_mates_change_nothing(
    parts, psi, make, features, head_of, damaged, family
):
    backbone = make(family)
    lgdm = parts["lgdm"].Lgdm(backbone, head_of(features(backbone)), psi)
    assert isinstance(lgdm, parts["contract"].Scorer)
    images = [*damaged(3), *pictures((100, 60))]
    together = lgdm.score(images)
    assert all(score.ok for score in together)
    assert lgdm.score([images[2]])[0].value == pytest.approx(together[2].value, abs=0.01)
    assert lgdm.score([images[3]])[0].value == pytest.approx(together[3].value, abs=0.01)
    values = together.values()
    assert values[0] > values[2]
    assert all(0.0 <= value <= 100.0 for value in values)
    assert all(score.attributes["spread"] > 0.0 for score in together)
    assert together.spec.calibrated_on == "your ratings"


@pytest.mark.parametrize("kind", ["guided_path", "single_level"])
def test_the_same_picture_has_the_same_features(features, kind):
    images = pictures((64, 64), (70, 130))
    first, second = (features(kind=kind).extract(images) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.features, other.features)
        assert len(one.features) == features(kind=kind).layout.size
    assert [one.attributes["views"] for one in first] == [1, 5]


def test_features_are_those_of_plain_hooks(features, make):
    """A single level against a forward by hand: encode, noise, and the taps' own channel means and deviations."""
    backbone = make("sdxl")
    found = features(backbone, kind="single_level", timesteps=(40,), views=("whole",), limit=None)
    (image,) = pictures((64, 64))
    (one,) = found.extract([image])
    z = backbone.encode(image[None])
    noise = backbone.noise(z.shape[1:], 40)
    seen = []
    network = backbone._patcher.model.diffusion_model
    # ComfyUI calls a block's layers one by one: the last one's output is the block's.
    hooks = [
        block[-1].register_forward_hook(lambda m, a, out: seen.append(out.clone())) for block in network.output_blocks
    ]
    try:
        backbone.denoise(z + found.sigmas[0] * noise, torch.tensor([found.sigmas[0]]), backbone.embed([""]))
    finally:
        for hook in hooks:
            hook.remove()
    flat = [values.flatten(2)[0].float() for values in seen]
    expected = torch.cat([part for v in flat for part in (v.mean(-1), v.std(-1, correction=0))])
    torch.testing.assert_close(one.features, expected, rtol=1e-4, atol=1e-5)


def test_guidance_changes_the_features_and_its_absence_is_plain_ddim(features, make):
    backbone = make()
    images = pictures((64, 64))
    plain, guided = (features(backbone, zeta1=zeta).extract(images)[0].features for zeta in (0.0, 0.3))
    first = len(plain) // 4  # [view, level]: the first level is read before anything is guided
    assert torch.equal(plain[:first], guided[:first])
    assert not torch.allclose(plain[first : 2 * first], guided[first : 2 * first], rtol=1e-3)
    perceptual = features(backbone, zeta1=0.0, zeta2=0.3)
    assert perceptual.psi_identity is not None
    assert features(backbone).psi_identity is None
    assert not torch.allclose(plain, perceptual.extract(images)[0].features, rtol=1e-3)


def test_pictures_that_cannot_be_read_get_reasons_and_harm_nobody(parts, features, make):
    images = pictures((64, 64), (64, 64), (4, 64), (64, 1200), (64, 64))
    images[1] = torch.full((3, 64, 64), float("nan"))
    found = features().extract(images)
    reasons = [one.reason for one in found]
    assert reasons[0] is reasons[4] is None
    assert "NaN" in reasons[1]
    assert "at least 8" in reasons[2]
    assert "16:1" in reasons[3]
    torch.testing.assert_close(found[4].features, features().extract(images[4:])[0].features, rtol=1e-4, atol=1e-5)


def test_diverging_guidance_is_a_reason(features):
    wild = replace(features().options.guidance, zeta1=1e9, normalised=False, timesteps=(90, 60, 30))
    found = features(guidance=wild).extract(pictures((64, 64)))
    assert "diverged" in found[0].reason


def test_broken_weights_are_a_reason(features, make, tiny):
    model = tiny.model("sd15")
    with torch.no_grad():
        model.model.diffusion_model.output_blocks[-1][0].out_layers[3].bias.fill_(float("nan"))
    found = features(make(model=model)).extract(pictures((64, 64)))
    assert "half precision" in found[0].reason


def test_taps_that_are_silent_are_a_reason(features, make, tiny):
    model = tiny.model("sd15")
    model.set_model_unet_function_wrapper(lambda apply_model, args: args["input"] * 0.5)
    found = features(make(model=model)).extract(pictures((64, 64)))
    assert "could not be read" in found[0].reason


def test_an_interrupt_comes_through_and_leaves_the_model_usable(features, make):
    class Stop(Exception):
        pass

    told = []

    def watch(done, total):
        told.append((done, total))
        if len(told) == 3:
            raise Stop

    found = features(make())
    images = pictures((64, 64), (64, 64))
    with pytest.raises(Stop):
        found.extract(images, watch=watch)
    told.clear()
    found.extract(images, watch=lambda done, total: told.append((done, total)))
    assert told[-1] == (200, 200)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_latents_at_hand_are_scored_as_the_picture_that_they_came_from(parts, psi, make, features, head_of, damaged):
    backbone = make()
    lgdm = parts["lgdm"].Lgdm(backbone, head_of(features(backbone, zeta1=0.0)), psi)
    assert isinstance(lgdm, parts["contract"].LatentScorer)
    images = damaged(3)
    z = backbone.encode(torch.stack(images))
    found = lgdm.score_latents(z)
    assert found.values() == pytest.approx(lgdm.score(images).values(), abs=0.01)
    assert found[0].attributes["source"] == "latents"
    broken = torch.cat([z[:1], z[:1] * float("nan")])
    assert [score.ok for score in lgdm.score_latents(broken)] == [True, False]
    wide = lgdm.score_latents(torch.cat([z[:1], z[:1]], 3))
    assert wide[0].attributes["source"] == "decoded latents"
    with pytest.raises(parts["errors"].BadInput, match="latents"):
        lgdm.score_latents(torch.zeros(1, 9, 8, 8))


def test_heads_of_other_models_kinds_and_psis_are_refused(parts, psi, make, features, head_of, tiny):
    Lgdm, Mismatch = parts["lgdm"].Lgdm, parts["errors"].MismatchedBackbone
    backbone = make()
    head = head_of(features(backbone))
    other = make(model=tiny.model("sd15", 1))
    with pytest.raises(Mismatch, match="fingerprint"):
        Lgdm(other, head, psi)
    allowed = Lgdm(other, head, psi, override=True)
    assert allowed.spec.calibrated_on is None
    assert "fingerprint" in allowed.score(pictures((64, 64)))[0].attributes["warnings"][0]
    with pytest.raises(Mismatch, match="family"):
        Lgdm(make("sd20"), head, psi, override=True)
    with pytest.raises(Mismatch, match="kind"):
        Lgdm(backbone, replace(head, meta=replace(head.meta, kind="probe")), psi)
    with pytest.raises(parts["errors"].BadInput, match="head of lgdm"):
        Lgdm(backbone, replace(head, meta=replace(head.meta, method="other")), psi)
    perceptual = head_of(features(backbone, zeta1=0.0, zeta2=0.1))
    with pytest.raises(parts["errors"].BadInput, match="psi"):
        Lgdm(backbone, perceptual)
    assert Lgdm(backbone, perceptual, psi).score(pictures((64, 64)))[0].ok


def test_a_lora_is_a_warning(parts, psi, make, features, head_of, tiny):
    backbone = make()
    head = head_of(features(backbone))
    model = tiny.model("sd15")
    name = "diffusion_model.output_blocks.0.0.in_layers.2.weight"
    weight = model.model.state_dict()[name]
    model.add_patches({name: (0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)),)})
    patched = parts["lgdm"].Lgdm(make(model=model), head, psi)
    score = patched.score(pictures((64, 64)))[0]
    assert patched.spec.calibrated
    assert "LoRA" in score.attributes["warnings"][0]


def test_the_position_pattern_of_a_grey_picture_is_taken_away(features, make):
    found = features(make(), kind="single_level", position=True, limit=None, views=("whole",), reducers=("std", "mean"))
    grey = found.extract([torch.full((3, 64, 64), 0.5)])[0].features
    assert float(grey.abs().max()) < 1e-4
    plain = features(make(), kind="single_level", limit=None, views=("whole",), reducers=("std", "mean"))
    assert float(plain.extract([torch.full((3, 64, 64), 0.5)])[0].features.abs().max()) > 0.1


def test_tiles_that_memory_forced_are_told_and_not_kept_on_disk(parts, features, make, tmp_path, monkeypatch):
    rows = sys.modules[parts["hyperfeatures"].HyperfeatureRows.__module__]
    original = rows.guided_path
    monkeypatch.setattr(rows, "guided_path", lambda *given, **named: replace(original(*given, **named), tile=16))
    found = features(make())
    cache = parts["feature_cache"].FeatureCache.of(tmp_path, found)
    (one,) = parts["feature_cache"].extract_cached(found, pictures((64, 64)), cache)
    assert one.attributes["tile"] == 16
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_cache_knows_pictures_settings_and_models(parts, features, make, tiny, tmp_path):
    cache, extract = parts["feature_cache"].FeatureCache, parts["feature_cache"].extract_cached
    found = features(make())
    images = pictures((64, 64), (64, 64), (3, 3))
    here = cache.of(tmp_path, found)
    first = extract(found, images, here)
    calls = []
    again = extract(found, images, here, watch=lambda done, total: calls.append(done))
    assert not calls
    assert torch.equal(again[0].features, first[0].features)
    assert again[2].reason == first[2].reason
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 2
    for content in (files[0].read_bytes()[:40], b""):
        files[0].write_bytes(content)
        healed = extract(found, images, here)
        for one, other in zip(healed[:2], first[:2], strict=True):
            torch.testing.assert_close(one.features, other.features, rtol=1e-4, atol=1e-5)
    folders = {here.folder}
    for other in (features(make(), zeta1=0.1), features(make(model=tiny.model("sd15", 1))), features(make("sd20"))):
        folders.add(cache.of(tmp_path, other).folder)
    assert len(folders) == 4
