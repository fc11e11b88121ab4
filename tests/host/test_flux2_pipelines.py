"""Flux.2 in diffusers: dev with Mistral 3 and klein with Qwen 3, held against the pipelines' own steps and ComfyUI."""

import pytest
import torch

pytestmark = pytest.mark.host

TEXTS = ("a good photo of a cat", "blurry")


@pytest.fixture(scope="module")
def pipelines(comfyui, tiny, tiny_pipelines):
    """`pipelines(family)` → (pipeline, MODEL, VAE)."""
    kept = {}

    def make(family):
        if family not in kept:
            model, vae = tiny.model(family), tiny.vae(0, family=family)
            kept[family] = (tiny_pipelines.pipeline(family, model, vae), model, vae)
        return kept[family]

    return make


@pytest.fixture
def make(pipelines):
    """`make(family)` → a backbone of the pipeline, and the pipeline."""
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone

    return lambda family: (DiffusersBackbone(pipelines(family)[0]), pipelines(family)[0])


def latents(backbone, rows=2):
    z = 0.5 * backbone.noise((rows, 128, 5, 7), 1)
    sigma = torch.linspace(0.3, 0.7, rows)
    level = sigma.view(-1, 1, 1, 1)
    return (1.0 - level) * z + level * backbone.noise(z.shape, 2), sigma


def recorded(backbone, z_t, sigma, texts):
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import full

    recorder = Recorder.of(backbone.family.taps, full)
    with torch.no_grad():
        x0 = backbone.denoise(z_t, sigma, texts, recorder)
    assert not recorder.silent()
    return x0, {key: record.value for key, record in recorder.records.items()}


def filled(clip, encoder):
    """A text encoder of transformers with the weights of ComfyUI's."""
    theirs = next(part for name, part in clip.cond_stage_model.named_children() if name.startswith(("mistral", "qwen")))
    state = theirs.transformer.state_dict()
    own = encoder.state_dict()
    found = {
        name: state["model." + name.removeprefix("model.").removeprefix("language_model.")]
        for name in own
        if "vision" not in name and "projector" not in name and "lm_head" not in name
    }
    assert len(found) == sum(name.startswith("model.") for name in state)
    encoder.load_state_dict(own | found)
    return encoder


@pytest.mark.parametrize("family", ["flux2", "flux2_klein"])
def test_conditions_are_the_pipelines_own(make, family):
    """Of the tokens that the text has: ComfyUI fills dev's texts with zeros where the pipeline encodes filling."""
    backbone, pipe = make(family)
    found = backbone.embed(TEXTS)
    assert found.tokens.shape[0] == 2
    assert found.pooled is None
    for row, (text, length) in enumerate(zip(TEXTS, found.lengths, strict=True)):
        assert (length == 512) == (family == "flux2_klein")
        with torch.no_grad():
            expected, _ = pipe.encode_prompt(text, max_sequence_length=length)
        torch.testing.assert_close(found.tokens[row, :length], expected[0], rtol=1e-4, atol=1e-5)
    assert found.tokens.shape[-1] == 48


def test_mistral_gives_both_hosts_the_same_conditions(make, tiny):
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    backbone, pipe = make("flux2")
    clip = tiny.clip("flux2")
    filled(clip, pipe.text_encoder)
    theirs = ComfyBackbone(tiny.model("flux2"), clip).embed(TEXTS)
    found = backbone.embed(TEXTS)
    assert found.lengths == theirs.lengths
    assert found.spans == theirs.spans
    assert found.text_tokens == theirs.text_tokens
    torch.testing.assert_close(found.tokens, theirs.tokens.float(), rtol=1e-3, atol=1e-3)


def test_qwen_gives_both_hosts_the_same_conditions(make, tiny):
    import comfy.text_encoders.flux
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    if not hasattr(comfy.text_encoders.flux, "klein_te"):
        pytest.skip("this ComfyUI has no text encoder of klein's; newer ones do")
    backbone, pipe = make("flux2_klein")
    clip = tiny.clip("flux2_klein")
    filled(clip, pipe.text_encoder)
    theirs = ComfyBackbone(tiny.model("flux2_klein"), clip).embed(TEXTS)
    found = backbone.embed(TEXTS)
    assert found.lengths == theirs.lengths == (512, 512)
    assert found.spans == theirs.spans
    torch.testing.assert_close(found.tokens, theirs.tokens.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["flux2", "flux2_klein"])
def test_both_hosts_agree_on_conditions_that_are_handed_in(make, pipelines, family):
    """Features, attention and x0 of one set of weights, without any text encoder; texts of 512 tokens and of fewer."""
    from types import SimpleNamespace

    from latent_critic.core.errors import BadInput
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone

    pipe, model, vae = pipelines(family)
    texts = make(family)[0].embed(TEXTS)
    bare = DiffusersBackbone(SimpleNamespace(transformer=pipe.transformer, vae=pipe.vae, text_encoder=None))
    with pytest.raises(BadInput, match="no text_encoder, tokenizer"):
        bare.embed(TEXTS)
    comfy = ComfyBackbone(model, None, vae)
    assert comfy.family == bare.family
    assert comfy.fingerprint.distance(bare.fingerprint) < 1e-6
    call = latents(comfy)
    one, other = recorded(comfy, *call, texts), recorded(bare, *call, texts)
    torch.testing.assert_close(other[0], one[0], rtol=1e-4, atol=1e-4)
    assert one[1].keys() == other[1].keys()
    for key, value in one[1].items():
        torch.testing.assert_close(other[1][key], value, rtol=1e-4, atol=1e-4, msg=str(key))
    pictures = torch.rand(2, 3, 67, 50, generator=torch.Generator().manual_seed(0))
    assert bare.encode(pictures).shape == (2, 128, 4, 3)
    torch.testing.assert_close(bare.encode(pictures), comfy.encode(pictures), rtol=1e-4, atol=1e-4)


def test_the_estimate_is_what_the_pipelines_own_helpers_make(make):
    backbone, pipe = make("flux2")
    z_t, sigma = latents(backbone, 1)
    texts = backbone.embed(TEXTS[:1])
    tokens = torch.cat([torch.zeros(1, 512 - texts.tokens.shape[1], 48), texts.tokens], dim=1)
    with torch.no_grad():
        out = pipe.transformer(
            pipe._pack_latents(z_t), tokens, sigma, pipe._prepare_latent_ids(z_t), pipe._prepare_text_ids(tokens),
            guidance=torch.full((1,), 3.5),
        ).sample  # fmt: skip
        velocity = pipe._unpack_latents_with_ids(out, pipe._prepare_latent_ids(z_t))
        found = backbone.denoise(z_t, sigma, texts)
    torch.testing.assert_close(found, z_t - sigma * velocity, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("family", "told"), [("flux2", True), ("flux2_klein", False)])
def test_guidance_is_told_where_the_size_has_an_embedding(make, family, told):
    from dataclasses import replace

    backbone, _ = make(family)
    z_t, sigma = latents(backbone)
    texts = backbone.embed(TEXTS)
    found = backbone.denoise(z_t, sigma, texts)
    backbone._family = replace(backbone.family, guidance=1.0)
    assert torch.equal(backbone.denoise(z_t, sigma, texts), found) != told


def test_latents_are_packed_and_normalised_as_the_pipeline_does(make):
    backbone, pipe = make("flux2")
    pictures = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = pipe._encode_vae_image(2.0 * pictures - 1.0, None)
        found = backbone.encode(pictures)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        spread = (pipe.vae.bn.running_var + pipe.vae.config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
        raw = pipe._unpatchify_latents(expected * spread + pipe.vae.bn.running_mean.view(1, -1, 1, 1))
        shown = (pipe.vae.decode(raw).sample + 1.0) / 2.0
        torch.testing.assert_close(backbone.decode(found), shown.clamp(0.0, 1.0), rtol=1e-4, atol=1e-4)
        law = pipe.vae.encode(2.0 * pictures - 1.0).latent_dist
        drawn = law.mean + law.std * torch.randn(law.mean.shape, generator=torch.Generator().manual_seed(3))
        mean = pipe.vae.bn.running_mean.view(1, -1, 1, 1)
        expected = (pipe._patchify_latents(drawn) - mean) / spread
        torch.testing.assert_close(backbone.encode(pictures, sample=3), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["flux2", "flux2_klein"])
def test_words_are_those_of_the_text_and_not_of_the_template(make, family):
    """Short words stand in the templates too; what changes with a word are its tokens and those after them."""
    backbone, _ = make(family)
    one, other = (backbone.embed([text]) for text in ("a user I am", "a user I do"))
    assert list(one.spans[0]) == [0, 1, 2, 3]
    (start, end), (first, _) = one.spans[0][3], one.spans[0][0]
    assert one.text_tokens[0] == (first, end)
    same = (one.tokens[0, :end] - other.tokens[0, :end]).abs().amax(-1) < 1e-6
    assert bool(same[:start].all())
    assert not bool(same[start:end].all())
    assert backbone.embed(["  "]).spans[0] == {}
    assert 0 not in backbone.embed(["[IMG] cat"]).spans[0] or family == "flux2_klein"


def test_a_long_text_is_cut_at_the_most_that_the_model_takes(make):
    backbone, _ = make("flux2")
    long = backbone.embed(["word " * 400])
    assert long.lengths == (512,)
    assert max(end for _, end in long.spans[0].values()) <= 512
    z_t, sigma = latents(backbone, 1)
    assert bool(backbone.denoise(z_t, sigma, long).isfinite().all())


def test_another_language_model_is_refused_by_name(make):
    from types import SimpleNamespace

    from latent_critic.core.errors import UnsupportedFamily
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone

    pipe = make("flux2")[1]
    other = SimpleNamespace(config=SimpleNamespace(model_type="gemma2"))
    parts = SimpleNamespace(transformer=pipe.transformer, vae=None, text_encoder=other, tokenizer=pipe.tokenizer)
    with pytest.raises(UnsupportedFamily, match=r"Flux.2 with one of mistral3, qwen3; got with gemma2"):
        DiffusersBackbone(parts).embed(["a"])
