"""One set of weights in two hosts: the pipeline in diffusers, and the same files as ComfyUI's MODEL, CLIP and VAE."""

import pytest
import torch
from latent_critic.core.errors import BadInput

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def hosts(comfyui, diffusers):
    """(ComfyUI's, diffusers') backbone of the shipped embedded model, both in fp32."""
    from comfy import model_management
    from latent_critic.core.hosts.comfyui import embedded
    from latent_critic.core.hosts.comfyui.adaptable import AdaptableComfyBackbone
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.hosts.diffusers.embedded import load_embedded

    with pytest.MonkeyPatch.context() as patch:  # ComfyUI keeps text encoders in fp16
        patch.setattr(model_management, "text_encoder_dtype", lambda *args, **rest: torch.float32)
        clip = embedded.load_clip()
    return AdaptableComfyBackbone(embedded.load_model(), clip, embedded.load_vae()), DiffusersBackbone(load_embedded())


@pytest.fixture
def clip_of_other_weights(comfyui):
    """The embedded CLIP, other weights in it."""
    from latent_critic.core.hosts.comfyui import embedded

    clip = embedded.load_clip()
    generator = torch.Generator().manual_seed(5)
    for parameter in clip.patcher.model.parameters():
        if parameter.ndim > 1:
            drawn = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            parameter.data.copy_(0.05 * drawn)
    return clip


@pytest.mark.parametrize("family", ["sd15", "sd20_v", "sdxl"])
def test_weights_and_taps_have_the_names_of_every_host(tiny_pipelines, tiny_model, family):
    from latent_critic.core.hosts.comfyui.unet_taps import unet_taps
    from latent_critic.core.hosts.diffusers.names import ldm_weights, places

    model = tiny_model(family)
    theirs, ours = model.model.diffusion_model, tiny_pipelines.unet(family, model)
    expected = {name: value.numel() for name, value in theirs.named_parameters()}
    assert {name: value.numel() for name, value in ldm_weights(ours)} == expected
    expected = [(tap.name, tap.kind, tap.stride) for tap in unet_taps(theirs).order]
    assert [(tap.name, tap.kind, tap.stride) for tap in places(ours).order] == expected


def test_one_model_has_one_fingerprint_and_one_family(hosts):
    comfy, pipeline = hosts
    assert comfy.fingerprint.distance(pipeline.fingerprint) < 1e-6
    assert comfy.family == pipeline.family
    assert dict(comfy.cross_shapes()) == dict(pipeline.cross_shapes())
    assert dict(comfy.text_spaces()) == dict(pipeline.text_spaces())


def test_hosts_know_each_others_text_encoders(hosts, clip_of_other_weights):
    """A head that was trained on the command line is warned about another CLIP in ComfyUI, and about nothing else."""
    from latent_critic.core.backbone.fingerprint import Fingerprint
    from latent_critic.core.heads.check import check_head
    from latent_critic.core.hosts.comfyui import embedded
    from latent_critic.core.hosts.comfyui.adaptable import AdaptableComfyBackbone
    from latent_critic.core.methods.genziqa_head import untrained

    comfy, pipeline = hosts
    mine, other = (Fingerprint.from_text(one.identity["text_l"]) for one in hosts)
    assert len(mine.sketch) > 100
    assert mine.distance(other) < 1e-3
    head = untrained(pipeline, context=2, rank=1)
    assert check_head(head, comfy, "prompts").warnings == ()
    foreign = AdaptableComfyBackbone(embedded.load_model(), clip_of_other_weights, embedded.load_vae())
    assert check_head(head, foreign, "prompts").warnings == (
        "the CLIP-L text encoder is not the one that the head was fitted with",
    )
    assert check_head(untrained(comfy, context=2, rank=1), foreign, "prompts").warnings == (
        "the CLIP is not the one that the head was fitted with",
    )


def test_logits_are_fp32_under_autocast(diffusers):
    from types import SimpleNamespace

    from latent_critic.core.hosts.diffusers.recording import _attention_hooks

    class Attention(torch.nn.Module):
        heads, processor = 2, None

        def __init__(self):
            super().__init__()
            self.to_q, self.to_k = torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False)

        def forward(self, hidden_states):
            rows = hidden_states.flatten(2).transpose(1, 2)
            return self.to_q(rows), self.to_k(rows)

    attention, seen = Attention(), []
    places = SimpleNamespace(attention={"a": (attention, attention)})
    _attention_hooks(places, SimpleNamespace(name="a"), lambda tap, logits, grid: seen.append(logits))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        q, k = attention(hidden_states=torch.randn(1, 8, 2, 3, generator=torch.Generator().manual_seed(0)))
    q, k = (part.float().unflatten(-1, (2, 4)).transpose(1, 2) for part in (q, k))
    assert seen[0].dtype == torch.float32
    torch.testing.assert_close(seen[0], q @ k.transpose(-1, -2) / 2, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("told", [True, False], ids=["with the keys", "without them"])
def test_a_head_of_the_command_line_knows_the_clip_layer_patches_and_vae(hosts, told):
    from dataclasses import replace

    from latent_critic.core.heads.check import check_head
    from latent_critic.core.hosts.comfyui import embedded
    from latent_critic.core.hosts.comfyui.adaptable import AdaptableComfyBackbone
    from latent_critic.core.methods.genziqa_head import untrained

    comfy, pipeline = hosts
    head = untrained(pipeline, context=2, rank=1)
    new = {"text_layer", "text_patches", "vae_ends"}
    assert {name: comfy.identity[name] for name in ("text_layer", "text_patches")} == {
        "text_layer": "last",
        "text_patches": "plain",
    }
    assert new <= set(head.meta.identity)
    if not told:
        kept = {name: value for name, value in head.meta.identity.items() if name not in new}
        head = replace(head, meta=replace(head.meta, identity=kept))

    def warnings(clip, vae):
        return check_head(head, AdaptableComfyBackbone(embedded.load_model(), clip, vae), "prompts").warnings

    plain, vae = embedded.load_clip(), embedded.load_vae()
    layer, patched, other = plain.clone(), plain.clone(), embedded.load_vae()
    layer.clip_layer(-2)
    key = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    weight = dict(plain.patcher.model.named_parameters())[key]
    assert patched.add_patches({key: ("diff", (torch.full_like(weight, 0.05),))}, 0.5)
    with torch.no_grad():
        kernel = other.patcher.model.taesd_encoder[0].weight
        kernel.add_(torch.randn(kernel.shape, generator=torch.Generator().manual_seed(1)))
    expected = ("the CLIP layer, or what patches CLIP, is not what the head was fitted with",)
    assert warnings(plain, vae) == ()
    assert warnings(layer, vae) == expected
    assert expected[0] in warnings(patched, vae)
    assert warnings(plain, other) == (("the VAE is not the one that the head was fitted with",) if told else ())


@pytest.mark.parametrize(("seed", "same"), [(0, True), (7, False)])
def test_hosts_agree_on_the_ends_of_an_autoencoder(tiny_pipelines, tiny_model, tiny_vae, seed, same):
    from latent_critic.core.backbone.fingerprint import Fingerprint
    from latent_critic.core.hosts.comfyui.identity import identity
    from latent_critic.core.hosts.diffusers.identity import identity as of_pipeline

    model = tiny_model("sd15")
    pipeline = tiny_pipelines.pipeline("sd15", model, tiny_vae(0))
    ours = Fingerprint.from_text(of_pipeline(pipeline, pipeline.unet)["vae_ends"])
    theirs = Fingerprint.from_text(identity(model, None, tiny_vae(seed))["vae_ends"])
    assert len(ours.sketch) == 4 * 16
    assert ours.matches(theirs) is same


@pytest.mark.parametrize("method", ["genziqa", "dp_iqa"])
def test_the_shipped_heads_have_nothing_to_say_of_the_embedded_model(hosts, method):
    from importlib import resources

    from latent_critic.core.heads.check import check_head
    from latent_critic.core.methods.dp_iqa_file import load_dp_iqa
    from latent_critic.core.methods.genziqa_file import load_genziqa

    load = {"genziqa": load_genziqa, "dp_iqa": load_dp_iqa}[method]
    with resources.as_file(resources.files("latent_critic.core") / "assets" / method) as folder:
        head = load(folder / "critic_ldm.safetensors")
    for backbone in hosts:
        assert check_head(head, backbone, head.meta.kind).warnings == ()


def test_texts_and_vectors_give_the_same_conditions(hosts):
    from latent_critic.core.backbone.adaptation import SoftPrompts

    comfy, pipeline = hosts
    words = ("Good Photo.", "хорошее фото", "良い写真")
    assert comfy.suffixes(words, 4) == pipeline.suffixes(words, 4)
    torch.testing.assert_close(comfy.embed(words).tokens, pipeline.embed(words).tokens.detach(), rtol=1e-4, atol=1e-4)
    context = {"l": 0.02 * torch.randn(4, 128, generator=torch.Generator().manual_seed(0))}
    seen = []
    for masked in (False, True):
        prompts = SoftPrompts(context, comfy.suffixes(words, 4), words, masked)
        found = [backbone.embed_soft(prompts).tokens.detach() for backbone in hosts]
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
        seen.append(found[1])
    assert float((seen[0] - seen[1]).abs().max()) > 1e-2
    assert [backbone.start_token("l") for backbone in hosts] == [49406] * 2
    vectors = pipeline.token_vectors([5, 800, 49407], "l")
    assert [backbone.token_ids(vectors, "l") for backbone in hosts] == [[5, 800, 49407]] * 2
    assert pipeline.token_ids(torch.randn(1, 128), "l") == [None]


def test_texts_longer_than_clip_takes_are_cut_into_pieces_as_comfyui_cuts_them(hosts):
    from latent_critic.core.methods.alignment import AlignmentOptions, PromptAlignment

    long = " ".join(f"{word} lighthouse" for word in ("sharp", "extraordinarily", "blurred") for _ in range(20))
    words = [long, "a dog", "photo " * 75, "photo " * 76, ""]
    comfy, pipeline = (backbone.embed(words) for backbone in hosts)
    assert pipeline.lengths == comfy.lengths
    assert set(pipeline.lengths) == {77, 154}
    assert pipeline.spans == comfy.spans
    assert pipeline.text_tokens == comfy.text_tokens
    torch.testing.assert_close(pipeline.tokens.detach(), comfy.tokens, rtol=1e-4, atol=1e-4)
    alone = hosts[1].embed([words[1]])
    torch.testing.assert_close(alone.tokens[0], pipeline.tokens[1, :77], rtol=1e-4, atol=1e-5)
    images = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    found = [PromptAlignment(backbone, AlignmentOptions(side=64)).score(images, words[:2]) for backbone in hosts]
    assert found[1].values() == pytest.approx(found[0].values(), abs=1e-4)


@pytest.mark.parametrize("family", ["sdxl"])
def test_pieces_of_two_encoders_lie_side_by_side(tiny_pipelines, tiny_model, tiny_vae, family):
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone

    backbone = DiffusersBackbone(tiny_pipelines.pipeline(family, tiny_model(family), tiny_vae(0)))
    first, second = " ".join(["lighthouse"] * 75), "a sharp dog"
    found = backbone.embed([f"{first} {second}", first, second])
    assert found.lengths == (154, 77, 77)
    pieces = torch.cat([found.tokens[1, :77], found.tokens[2, :77]])
    torch.testing.assert_close(found.tokens[0], pieces, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pooled[0], found.pooled[1])
    assert found.spans[0][77] == (77 + 3, 77 + 4)


def test_features_and_attention_are_the_same(hosts):
    from latent_critic.core.taps.recorder import Recorder, TapRequest
    from latent_critic.core.taps.reducers import log_sum_exp, mean

    comfy = hosts[0]
    z_t = comfy.noise((2, 8, 8, 12), 1)
    sigma = torch.tensor([0.2, 3.0])
    conditioning = comfy.embed(["a sharp photo", "a blurry photo"])
    found = []
    for backbone in hosts:
        requests = [
            TapRequest(tap, mean if tap.kind == "feature" else log_sum_exp(0.14)) for tap in backbone.family.taps
        ]
        recorder = Recorder(tuple(requests))
        with torch.no_grad():
            x0 = backbone.denoise(z_t, sigma, conditioning, recorder)
        found.append((x0, {key: record.value for key, record in recorder.records.items()}))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    assert set(found[0][1]) == set(found[1][1])
    for key, value in found[0][1].items():
        torch.testing.assert_close(value, found[1][1][key], rtol=1e-4, atol=1e-4)


def head_for(backbone, rank=4):
    from latent_critic.core.methods.genziqa_head import untrained
    from latent_critic.core.methods.genziqa_settings import GenzSettings

    head = untrained(backbone, GenzSettings(timesteps=(9, 57), side=64), rank=rank)
    generator = torch.Generator().manual_seed(3)
    for _, up in head.lora.layers.values():
        up.copy_(0.05 * torch.randn(up.shape, generator=generator))
    return head


def test_a_head_scores_alike_in_both_hosts(hosts):
    from latent_critic.core.methods.genziqa import GenzIQA

    images = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    head = head_for(hosts[1])
    found = [GenzIQA(backbone, head).score(images) for backbone in hosts]
    assert all(score.ok for batch in found for score in batch)
    assert not any("warnings" in score.attributes for score in found[0])
    assert found[0].values() == pytest.approx(found[1].values(), abs=1e-4)
    assert len(set(found[0].values())) == 2


def test_early_stop_and_chunks_change_nothing(hosts):
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.methods.genziqa import GenzIQA, GenzIQAOptions

    images = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    pipeline = hosts[1]
    head, few = head_for(pipeline), DiffusersBackbone(pipeline._pipeline, most_rows=3)
    whole = GenzIQA(pipeline, head).score(images)
    assert GenzIQA(few, head).score(images).values() == pytest.approx(whole.values(), abs=1e-4)
    early = GenzIQA(pipeline, head, GenzIQAOptions(bias=False)).score(images)
    expected = [score.attributes["attention"] for score in whole]
    assert [score.attributes["attention"] for score in early] == pytest.approx(expected, abs=1e-5)


def test_gradients_reach_vectors_and_lora_and_hooks_are_gone(hosts):
    from latent_critic.core.methods.prompt_scores import alignment, recorded_alignment
    from latent_critic.core.taps.recorder import Recorder

    pipeline = hosts[1]
    head = head_for(pipeline)
    wanted = [*head.prompts.context.values(), *(part for pair in head.lora.layers.values() for part in pair)]
    for tensor in wanted:
        tensor.requires_grad_(True)
    backbone = pipeline.adapted(head.lora)
    recorder = Recorder.of([tap for tap in backbone.family.taps if tap.kind == "attention"], alignment())
    z_t = pipeline.noise((2, 8, 8, 8), 1)
    x0 = backbone.denoise(z_t, torch.full((2,), 0.3), backbone.embed_soft(head.prompts), recorder)
    answer, silent = recorded_alignment(recorder, 2)
    assert not silent
    (answer.sum() + x0.square().mean()).backward()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in wanted)
    assert sum(float(tensor.grad.abs().sum()) > 0 for tensor in wanted) == len(wanted)
    for module in [*pipeline._unet.modules(), *pipeline._pipeline.text_encoder.modules()]:
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(parameter.grad is None for parameter in pipeline._unet.parameters())


def test_pixels_and_latents_there_and_back(hosts):
    comfy, pipeline = hosts
    images = torch.rand(1, 3, 70, 53, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents = pipeline.encode(images)
        torch.testing.assert_close(latents, comfy.encode(images).float(), rtol=1e-4, atol=1e-4)
        other = pipeline.encode(images, value_range=(0.0, 1.0))
        torch.testing.assert_close(other, comfy.encode(images, value_range=(0.0, 1.0)).float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(pipeline.decode(latents), comfy.decode(latents).float(), rtol=1e-4, atol=1e-4)


def test_bad_input(hosts):
    pipeline = hosts[1]
    with pytest.raises(BadInput, match="latents"):
        pipeline.denoise(torch.zeros(1, 4, 8, 8), torch.ones(1), pipeline.embed(["a"]))
    with pytest.raises(BadInput, match="at most 71 tokens after 4 vectors"):
        pipeline.suffixes(["photo " * 72], 4)
    with pytest.raises(BadInput, match="a word or more"):
        pipeline.suffixes([" "], 4)
    with pytest.raises(BadInput, match="8 a side"):
        pipeline.encode(torch.zeros(1, 3, 4, 40))
