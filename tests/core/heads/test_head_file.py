"""Head files: whole or refused, and checked against the model."""

import json
import pickle

import pytest
import torch
from latent_critic.core.errors import BadInput, MismatchedBackbone, UnreadableFile
from latent_critic.core.heads.fit import FitOptions, fit_head
from latent_critic.core.heads.head_file import Wanted, check_head, head_digest, load_head, save_head
from latent_critic.core.heads.layout import Layout, Slot
from safetensors import safe_open


@pytest.fixture
def head(rated, layout, meta):
    def build(options=None, **fields):
        return fit_head(*rated(), layout, meta(**fields), options).head

    return build


@pytest.mark.parametrize("model", ["ridge", "kernel", "mlp"])
@pytest.mark.parametrize("link", ["logistic", "isotonic"])
def test_a_head_comes_back_as_it_was(tmp_path, head, rated, model, link):
    made = head(FitOptions(model, link, folds=2), settings={"zeta1": 0.5}, validation={"srcc": 0.8})
    save_head(tmp_path / "a.safetensors", made)
    back = load_head(tmp_path / "a.safetensors")
    features = rated(seed=9)[0]
    assert back.meta == made.meta
    assert back.layout == made.layout
    for one, other in ((made.predict(features), back.predict(features)),):
        assert torch.allclose(one.value, other.value, atol=1e-9)
        assert torch.allclose(one.spread, other.spread, rtol=1e-4)


def test_the_file_says_what_it_is(tmp_path, head):
    save_head(tmp_path / "a.safetensors", head())
    with safe_open(tmp_path / "a.safetensors", framework="pt") as handle:
        told = json.loads(handle.metadata()["latent_critic_head"])
    for name in ("format", "method", "kind", "family", "fingerprint", "taps", "sigmas", "reducers", "prompt"):
        assert name in told
    assert told["pictures"] == 120
    assert head_digest(load_head(tmp_path / "a.safetensors")) == head_digest(head())
    assert head_digest(head()) != head_digest(head(pictures=1, training_set="others"))


def test_damaged_foreign_and_missing_files_are_refused(tmp_path, head):
    path = tmp_path / "a.safetensors"
    save_head(path, head())
    whole = path.read_bytes()
    for place, content in enumerate((whole[: len(whole) // 2], whole[:-1], b"", pickle.dumps({"w": 1}))):
        broken = tmp_path / f"{place}.safetensors"
        broken.write_bytes(content)
        with pytest.raises(UnreadableFile, match=broken.name):
            load_head(broken)
    with pytest.raises(UnreadableFile, match="no such file"):
        load_head(tmp_path / "none.safetensors")
    with pytest.raises(BadInput, match="safetensors"):
        save_head(tmp_path / "a.pt", head())
    assert sorted(found.name for found in tmp_path.iterdir()) == [*(f"{n}.safetensors" for n in range(4)), path.name]


@pytest.mark.parametrize(("old", "new"), [(b'"format": 1', b'"format": 9'), (b'"stop": 16', b'"stop": 15')])
def test_other_formats_and_torn_layouts_are_refused(tmp_path, head, old, new):
    path = tmp_path / "a.safetensors"
    save_head(path, head())
    content = path.read_bytes()
    escaped = old.replace(b'"', b'\\"'), new.replace(b'"', b'\\"')
    assert escaped[0] in content
    path.write_bytes(content.replace(*escaped, 1))
    with pytest.raises(UnreadableFile):
        load_head(path)


def test_a_head_of_the_model_fits(head, model):
    found = check_head(head(), model(), "guided_path", Wanted("lgdm", ("up.0", "up.1"), (0.4, 0.2), ("mean", "std")))
    assert found.calibrated
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("field", "loaded", "kind", "wanted"),
    [
        ("family", {"family": "other"}, "guided_path", {}),
        ("kind", {}, "probe", {}),
        ("method", {}, "guided_path", {"method": "probe"}),
        ("taps", {}, "guided_path", {"taps": ("up.1",)}),
        ("sigmas", {}, "guided_path", {"sigmas": (0.4, 0.3)}),
        ("reducers", {}, "guided_path", {"reducers": ("mean",)}),
    ],
)
def test_a_difference_is_named_and_cannot_be_overridden(head, model, field, loaded, kind, wanted):
    for override in (False, True):
        with pytest.raises(MismatchedBackbone, match=field):
            check_head(head(), model(**loaded), kind, Wanted(**wanted), override=override)


@pytest.mark.parametrize(
    ("field", "loaded", "wanted"),
    [
        ("fingerprint", {"sketch": (0.5, 0.5)}, {}),
        ("prompt", {}, {"prompt": "a photo"}),
        ("image-size policy", {}, {"size_policy": "crops"}),
    ],
)
def test_another_checkpoint_is_refused_or_overridden_with_a_warning(head, model, field, loaded, wanted, caplog):
    with pytest.raises(MismatchedBackbone, match=field):
        check_head(head(), model(**loaded), "guided_path", Wanted(**wanted))
    found = check_head(head(), model(**loaded), "guided_path", Wanted(**wanted), override=True)
    assert not found.calibrated
    assert field in found.warnings[0]
    assert field in caplog.text


def test_patches_and_another_vae_are_worth_a_warning_only(head, model):
    patched = check_head(head(), model(patched=True), "guided_path")
    assert patched.calibrated
    assert "LoRA" in patched.warnings[0]
    other = check_head(head(), model(identity={"vae": "lc1:vae::AAD/fw=="}), "guided_path")
    assert "VAE" in other.warnings[0]


def test_a_head_of_a_patched_model_or_another_clip_layer_is_worth_a_warning(rated, layout, meta, model):
    def warnings(before, now):
        identity = {"model": "plain", "clip_set_up": "layer last"}
        head = fit_head(*rated(), layout, meta(identity={**identity, **before})).head
        return check_head(head, model(identity={**identity, **now}), "guided_path").warnings

    assert warnings({}, {}) == ()
    (found,) = warnings({"model": "a LoRA's digest"}, {})
    assert "LoRA" in found
    assert warnings({}, {"model": "a LoRA's digest"}) == (found,)
    (found,) = warnings({}, {"clip_set_up": "layer -2"})
    assert "CLIP layer" in found


def test_a_head_of_another_host_is_compared_by_what_both_tell(rated, layout, meta, model):
    def warnings(before, now):
        head = fit_head(*rated(), layout, meta(identity={"diffusers_text_encoder": "any", **before})).head
        now = {"clip_set_up": "any", "text_layer": "last", "text_patches": "plain", **now}
        return check_head(head, model(identity=now), "guided_path").warnings

    plain = {"text_layer": "last", "text_patches": "plain"}
    for before in ({}, plain):
        assert warnings(before, {}) == ()
        for changed in ({"text_layer": "-2"}, {"text_patches": "a digest"}):
            (found,) = warnings(before, changed)
            assert "CLIP layer" in found
    assert warnings({"text_layer": "-2", "text_patches": "plain"}, {"text_layer": "-2"}) == ()
    sketches = {"vae_ends": "lc1:vae_ends::AAD/fw=="}, {"vae_ends": "lc1:vae_ends::/38AAA=="}
    (found,) = warnings(*sketches)
    assert "VAE" in found
    assert warnings(sketches[0], sketches[0]) == ()


def test_a_tap_that_the_model_lacks_is_named(rated, meta, model):
    layout = Layout.of([("up.9", 0, "mean", "whole", 32)])
    with pytest.raises(MismatchedBackbone, match=r"taps up\.9"):
        check_head(fit_head(*rated(), layout, meta()).head, model(), "guided_path")


def test_layouts_have_no_gaps_and_can_be_cut(layout):
    with pytest.raises(BadInput, match="follow"):
        Layout((Slot("a", 0, "mean", 0, 4), Slot("b", 0, "mean", 5, 8)))
    with pytest.raises(BadInput, match="differ"):
        Layout((Slot("a", 0, "mean", 0, 4), Slot("a", 0, "mean", 4, 8)))
    part, columns = layout.select(lambda slot: slot.reducer == "mean")
    assert columns == [*range(8), *range(16, 32)]
    assert part.size == 24
    assert part.taps == ("up.0", "up.1")
    assert Layout.from_list(json.loads(json.dumps(layout.to_list()))) == layout
