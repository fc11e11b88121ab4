"""The transformer families: features as plain hooks see them, attention recomputed, the network's own estimate."""

import itertools

import pytest
import torch

pytestmark = pytest.mark.host

FAMILIES = ["sd3", "flux", "flux_schnell", "flux2", "lumina2", "zimage", "qwen_image", "wan21"]
#: Where each family's blocks lie, which part of their output is the image's, and which attention calls of a forward
#: are the text's (SD 3.5 has one of the image alone, Lumina two refiners before its blocks, Wan one of each kind).
BLOCKS = {
    "sd3": (["joint_blocks"], [1], [0, 2, 3]),
    "flux": (["double_blocks", "single_blocks"], [0, None], [0, 1, 2, 3]),
    "lumina2": (["layers"], [None], [2, 3, 4]),
    "qwen_image": (["transformer_blocks"], [1], [0, 1, 2]),
    "wan21": (["blocks"], [None], [1, 3, 5]),
}
BLOCKS["zimage"] = BLOCKS["lumina2"]
BLOCKS["flux2"] = BLOCKS["flux_schnell"] = BLOCKS["flux"]


@pytest.fixture
def make(comfyui, tiny):
    """`make(family)` → a backbone with CLIP and VAE; `model=` uses a MODEL you have."""
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    return lambda family, model=None: ComfyBackbone(
        model or tiny.model(family), tiny.clip(family), tiny.vae(0, family=family)
    )


def arguments(backbone, rows=2, h=6, w=10, prompts=("a good photo", "a bad photo of a cat")):
    z = 0.5 * backbone.noise((rows, backbone.family.latent_channels, h, w), seed=1)
    sigma = torch.linspace(0.3, 0.6, rows)
    level = sigma.view(-1, 1, 1, 1)
    z_t = (1.0 - level) * z + level * backbone.noise(z.shape, seed=2)
    return z_t, sigma, backbone.embed([prompts[row % len(prompts)] for row in range(rows)])


def of(backbone, kind, reducer):
    from latent_critic.core.taps.recorder import Recorder

    return Recorder.of([tap for tap in backbone.family.taps if tap.kind == kind], reducer)


def stacked(recorder, tap):
    return torch.stack([record.value for record in recorder.rows(tap)])


def bare(model, z_t, sigma, texts, guidance):
    """ComfyUI's model called directly, without sampler and guider."""
    tokens, video = texts.tokens, model.model.latent_format.latent_dimensions == 3
    more = {}
    if texts.pooled is not None:
        more["y"] = texts.pooled
    if guidance:
        more["guidance"] = torch.full((len(z_t),), guidance)
    name = type(model.model).__name__
    if name == "Flux2":
        tokens = torch.nn.functional.pad(tokens, (0, 0, 512 - tokens.shape[1], 0))
    if name == "Lumina2":
        more["num_tokens"] = tokens.shape[1]
    with torch.no_grad():
        x0 = model.model.apply_model(z_t.unsqueeze(2) if video else z_t, sigma, c_crossattn=tokens, **more)
    return x0[:, :, 0] if video else x0


def text_start(model, texts):
    """How many tokens the network keeps before the image, and at which of them the prompt's own begin."""
    own = texts.tokens.shape[1]
    columns = 512 if type(model.model).__name__ == "Flux2" else own
    multiple = getattr(model.model.diffusion_model, "pad_tokens_multiple", None) or 1
    return -(-columns // multiple) * multiple, columns - own


@pytest.mark.parametrize("family", FAMILIES)
def test_the_clean_estimate_is_the_networks_own(tiny, make, family):
    model = tiny.model(family)
    backbone = make(family, model)
    z_t, sigma, texts = arguments(backbone, prompts=("a good photo",))
    found = backbone.denoise(z_t, sigma, texts)
    assert found.shape == z_t.shape
    torch.testing.assert_close(found, bare(model, z_t, sigma, texts, backbone.family.guidance), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(6, 10), (5, 7)])
def test_features_equal_plain_hooks(tiny, make, family, size):
    from latent_critic.core.taps.reducers import full

    model = tiny.model(family)
    backbone = make(family, model)
    call = arguments(backbone, h=size[0], w=size[1], prompts=("a good photo",))
    found, hooks = {}, []
    lists, parts, _ = BLOCKS[family]
    for name, part in zip(lists, parts, strict=True):
        for block in getattr(model.model.diffusion_model, name):
            place = len(hooks)

            def keep(module, args, out, place=place, part=part):
                found[place] = (out if part is None else out[part]).detach().clone()

            hooks.append(block.register_forward_hook(keep))
    recorder = of(backbone, "feature", full)
    x0 = backbone.denoise(*call, recorder)
    for hook in hooks:
        hook.remove()
    assert torch.equal(backbone.denoise(*call), x0)
    assert not recorder.silent()
    patch = backbone.family.patch
    h, w = -(-size[0] // patch), -(-size[1] // patch)
    first, _ = text_start(model, call[2])
    for place, request in enumerate(recorder.requests):
        tokens = found[place]
        joined = tokens.shape[1] >= first + h * w and family != "wan21"
        tokens = tokens[:, first : first + h * w] if joined else tokens[:, : h * w]
        expected = tokens.transpose(1, 2).reshape(len(tokens), -1, h, w)
        assert torch.equal(stacked(recorder, request.tap.name), expected), request.tap.name
        assert (request.tap.channels, request.tap.stride) == (expected.shape[1], patch)
        assert {(record.grid.h, record.grid.w) for record in recorder.rows(request.tap.name)} == {(h, w)}


@pytest.mark.parametrize("family", FAMILIES)
def test_text_attention_equals_a_recomputation(tiny, make, family):
    from latent_critic.core.taps.reducers import full, probabilities

    calls = []

    def watch(func, q, k, v, heads, *args, **kwargs):
        split = kwargs.get("skip_reshape", False)
        calls.append([part if split else part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k)])
        return func(q, k, v, heads, *args, **kwargs)

    model = tiny.model(family).clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = watch
    backbone = make(family, model)
    call = arguments(backbone, prompts=("a good photo",))
    logits, chances = of(backbone, "attention", full), of(backbone, "attention", probabilities)
    backbone.denoise(*call, logits)
    mine = [calls[place] for place in BLOCKS[family][2]]
    assert len(mine) == len(logits.requests)
    backbone.features(*call, chances)
    first, before = text_start(model, call[2])
    own, cells = call[2].tokens.shape[1], (6 // backbone.family.patch) * (10 // backbone.family.patch)
    for (q, k), request in zip(mine, logits.requests, strict=True):
        rows = slice(0, cells) if family == "wan21" else slice(first, first + cells)
        q, k = q.double()[:, :, rows], k.double()[:, :, before : before + own]
        expected = torch.einsum("nhqd,nhkd->nhqk", q, k) / q.shape[-1] ** 0.5
        name = request.tap.name
        assert q.shape[1] == request.tap.channels
        torch.testing.assert_close(stacked(logits, name).double(), expected, rtol=1e-4, atol=1e-4)
        powers = (expected - expected.amax(-1, keepdim=True)).exp()
        expected = powers / powers.sum(-1, keepdim=True)
        torch.testing.assert_close(stacked(chances, name).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_early_stop_changes_no_recorded_value(tiny, make, family):
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import full

    model, later = tiny.model(family), []
    backbone = make(family, model)
    call = arguments(backbone, prompts=("a good photo",))
    whole = Recorder.of(backbone.family.taps, full)
    backbone.denoise(*call, whole)
    last = getattr(model.model.diffusion_model, BLOCKS[family][0][-1])[-1]
    hook = last.register_forward_hook(lambda *given: later.append(1))
    for tap in backbone.family.taps[:2]:
        some = Recorder.of([tap], full)
        backbone.features(*call, some)
        assert torch.equal(stacked(some, tap.name), stacked(whole, tap.name)), tap.name
    hook.remove()
    assert not later


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_know_nothing_of_each_other(make, family):
    """Prompts of other lengths, other noise levels beside it: a row's estimate and taps stay."""
    from latent_critic.core.taps.reducers import mean

    backbone = make(family)
    z_t, sigma, texts = arguments(backbone, rows=3)
    together = of(backbone, "feature", mean)
    x0 = backbone.denoise(z_t, sigma, texts, together)
    alone = of(backbone, "feature", mean)
    lone = backbone.denoise(z_t[1:2], sigma[1:2], backbone.embed(["a bad photo of a cat"]), alone)
    torch.testing.assert_close(x0[1:2], lone, rtol=1e-4, atol=1e-5)
    for request in together.requests:
        first, second = (stacked(found, request.tap.name) for found in (together, alone))
        torch.testing.assert_close(first[1:2], second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_users_model_is_unharmed(tiny, make, weights_of, family):
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import full

    model = tiny.model(family)
    options, weights = str(model.model_options), weights_of(model)
    backbone = make(family, model)
    call = arguments(backbone)
    backbone.denoise(*call, Recorder.of(backbone.family.taps, full))
    backbone.features(*call, Recorder.of(backbone.family.taps[:1], full))
    backbone.decode(backbone.encode(torch.rand(2, 3, 64, 48)))
    after = weights_of(model)
    assert all(torch.equal(weights[name], after[name]) for name in weights)
    assert (str(model.model_options), model.wrappers) == (options, {})
    for name, module in model.model.named_modules():
        assert not module._forward_hooks, name
        assert not module._forward_pre_hooks, name


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_there_and_back(make, family):
    """Sides that are no multiple are cropped; a batch is the same as its pictures one by one."""
    backbone = make(family)
    stride = backbone.family.latent_stride
    pictures = torch.rand(2, 3, 4 * stride + 3, 3 * stride, generator=torch.Generator().manual_seed(0))
    latents = backbone.encode(pictures)
    assert latents.shape == (2, backbone.family.latent_channels, 4, 3)
    torch.testing.assert_close(backbone.encode(pictures[1:]), latents[1:], rtol=1e-4, atol=1e-5)
    back = backbone.decode(latents)
    assert back.shape == (2, 3, 4 * stride, 3 * stride)
    assert 0.0 <= float(back.min()) <= float(back.max()) <= 1.0


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_found_behind_every_template(make, family):
    """A word's tokens are those that change when it does, and no others before them."""
    backbone = make(family)
    texts = backbone.embed(["a good photo of cats", "a good photo of dogs"])
    assert list(texts.spans[0]) == [0, 1, 2, 3, 4]
    first, last = texts.text_tokens[0]
    assert texts.spans[0][0][0] == first
    assert texts.spans[0][4][1] == last <= texts.lengths[0]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(texts.spans[0].values()))
    if family not in ("sd3", "lumina2", "zimage", "qwen_image", "flux2"):
        return  # T5 looks both ways: every token changes
    start, last = texts.spans[0][4]
    same = (texts.tokens[0] - texts.tokens[1]).abs().amax(-1) < 1e-6
    assert bool(same[:start].all())
    assert not bool(same[start:last].all())


@pytest.mark.parametrize("family", ["flux", "flux2"])
def test_the_distilled_guidance_is_told(tiny, make, family):
    model = tiny.model(family)
    backbone = make(family, model)
    call = arguments(backbone, prompts=("a good photo",))
    assert backbone.family.guidance == 3.5
    other = bare(model, *call, 1.0)
    assert not torch.allclose(backbone.denoise(*call), other, atol=1e-4)


def test_bad_input(tiny, make):
    from latent_critic.core.errors import BadInput, MismatchedBackbone
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    backbone = make("wan21")
    z_t, sigma, texts = arguments(backbone)
    with pytest.raises(BadInput, match="sigmas from 0 to 1"):
        backbone.denoise(z_t, sigma + 1.0, texts)
    with pytest.raises(BadInput, match="a video of 5 latent frames"):
        backbone.in_model_space(torch.zeros(1, 16, 5, 8, 8))
    with pytest.raises(BadInput, match=r"latents \[N, 16, h, w\]"):
        backbone.in_model_space(torch.zeros(1, 4, 8, 8))
    assert backbone.in_model_space(torch.ones(1, 16, 1, 8, 8)).shape == (1, 16, 8, 8)
    with pytest.raises(MismatchedBackbone, match="16 latent channels, 3 dimensions"):
        ComfyBackbone(tiny.model("wan21"), vae=tiny.vae(0, family="flux"))
    with pytest.raises(MismatchedBackbone, match="a CLIP of umt5xxl for wan21"):
        ComfyBackbone(tiny.model("wan21"), tiny.clip("flux"))
    with pytest.raises(MismatchedBackbone, match=r"mistral3_24b\|qwen3_4b\|qwen3_8b"):
        ComfyBackbone(tiny.model("flux2"), tiny.clip("flux"))


def test_no_lora_on_joint_attention(tiny):
    from latent_critic.core.errors import UnsupportedFamily
    from latent_critic.core.hosts.comfyui.adaptable import AdaptableComfyBackbone

    with pytest.raises(UnsupportedFamily, match="transformer of flux"):
        AdaptableComfyBackbone(tiny.model("flux"))
