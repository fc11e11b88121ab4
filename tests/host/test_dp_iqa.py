"""DP-IQA on tiny real models of every U-Net family: sums, ladder, text, files, and what is refused."""

from dataclasses import replace

import pytest
import torch

pytestmark = pytest.mark.host
FAMILIES = ["sd15", "sd15_three_scales", "sd20", "sd20_v", "sdxl"]
FEW = tuple(
    f"a photo of a {scene} with {fault} artifacts" for scene in ("human", "plant") for fault in ("lens", "blur")
)


@pytest.fixture
def few_sentences(monkeypatch):
    monkeypatch.setattr("latent_critic.core.methods.dp_iqa_text.sentences", lambda: FEW)


@pytest.fixture
def dp(comfyui):
    """The modules, as the installed package has them."""
    from types import SimpleNamespace

    from latent_critic.core.backbone import residuals as contract
    from latent_critic.core.hosts.comfyui import residuals
    from latent_critic.core.methods import dp_iqa, dp_iqa_file, dp_iqa_head, dp_iqa_settings, dp_iqa_text

    return SimpleNamespace(
        contract=contract, host=residuals, scorer=dp_iqa, file=dp_iqa_file, head=dp_iqa_head,
        settings=dp_iqa_settings, text=dp_iqa_text,
    )  # fmt: skip


@pytest.fixture
def backbone_of(dp, tiny_model, tiny_clip, tiny_vae):
    def make(family="sd15", seed=0, model=None):
        return dp.host.ResidualComfyBackbone(model or tiny_model(family, seed), tiny_clip(family), tiny_vae(0))

    return make


@pytest.fixture
def head_of(dp):
    """A head with random weights that matter: every adapter moves the score."""

    def make(backbone, seed=0, **settings):
        found = dp.settings.DpSettings(**{"side": 64, **settings})
        width = backbone.embed(["a"]).tokens.shape[-1]
        shape = dp.head.fitting_shape(
            backbone.family, width, width=16, squeeze=4, thin=(8, 4), cells=4, hidden=16, side=64, text_hidden=8,
            image_width=6, image_blocks=1,
        )  # fmt: skip
        head = dp.head.untrained(backbone, shape, found, seed)
        with torch.no_grad():
            head.nets.text_adapter.gamma.fill_(1.0)
            for layer in head.nets.img_adapter.out:
                layer.weight.normal_(generator=torch.Generator().manual_seed(seed))
            head.nets.QFD.fc3.bias.fill_(0.5)
        meta = replace(head.meta, calibrated_on="photographs", scale=(0.0, 100.0), spread=15.0)
        return replace(head, meta=meta)

    return make


def pictures(count, side=64):
    draw = torch.Generator().manual_seed(5)
    return [torch.rand(3, side, side, generator=draw) for _ in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_do_not_know_their_batch(dp, backbone_of, head_of, few_sentences, family):
    backbone = backbone_of(family)
    scorer = dp.scorer.DpIqa(backbone, head_of(backbone))
    images = [*pictures(3), torch.rand(3, 96, 40, generator=torch.Generator().manual_seed(9))]
    together = scorer.score(images)
    assert all(score.ok for score in together), [score.reason for score in together]
    alone = [scorer.score([image])[0].value for image in images]
    assert alone == pytest.approx(together.values(), abs=1e-3)
    assert scorer.score(images).values() == together.values()
    assert len({round(value, 3) for value in alone}) == 4
    assert scorer.spec.scale == (0.0, 100.0)
    assert scorer.spec.calibrated_on == "photographs"


@pytest.mark.parametrize("family", ["sd15", "sd15_three_scales", "sdxl"])
def test_levels_are_those_of_the_network(dp, backbone_of, tiny_model, family):
    """Channels and strides by the taps' symmetry, against the modules themselves."""
    backbone = backbone_of(family)
    unet = tiny_model(family).model.diffusion_model
    lasts = dp.host.last_blocks(unet)
    x, seen = torch.randn(1, 4, 16, 16), {}

    def see(h, options):
        seen[options["block"][1]] = (h.shape[1], 16 // h.shape[2])
        return h

    context = torch.randn(1, 4, backbone.embed(["a"]).tokens.shape[-1])
    y = None if unet.num_classes is None else torch.randn(1, unet.label_emb[0][0].in_features)
    with torch.no_grad():
        unet(x, torch.tensor([1.0]), context, y, transformer_options={"patches": {"input_block_patch": [see]}})
    found = list(dp.contract.down_levels(backbone.family.taps))
    assert [seen[number] for number in lasts] == found
    assert len(lasts) == len(found) == len(dp.contract.level_ends(backbone.family.taps))


@pytest.mark.parametrize("family", ["sd15", "sd20_v", "sdxl"])
def test_residuals_reach_features_as_in_a_plain_forward(dp, backbone_of, tiny_model, family):
    """Against hooks on the network's own modules; and the model is left as it was."""
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import full

    model = tiny_model(family)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    backbone = backbone_of(family, model=model)
    levels, ends = (f(backbone.family.taps) for f in (dp.contract.down_levels, dp.contract.level_ends))
    z, sigma = backbone.noise((3, 4, 8, 12), 1), torch.full((3,), 0.05)
    text = backbone.embed(["one", "two", "three"])
    draw = torch.Generator().manual_seed(2)
    residuals = [torch.randn(3, wide, -(-8 // stride), -(-12 // stride), generator=draw) for wide, stride in levels]
    recorder = Recorder.of(ends, full)
    backbone.features_beside(z, sigma, text, recorder, residuals)

    seen = {}
    unet = model.model.diffusion_model
    inner = unet.forward

    def forward(x, timesteps, context=None, y=None, control=None, transformer_options=None, **rest):
        count = len(unet.input_blocks)
        given = [None] * count
        for level, number in enumerate(dp.host.last_blocks(unet)):
            given[number] = residuals[level]
        # ComfyUI's own T2I-adapter mechanism takes them from the end.
        control = {"input": given[::-1]}
        return inner(x, timesteps, context, y, control, transformer_options, **rest)

    plain = type(backbone).__mro__[1](model)
    again = Recorder.of(ends, full)
    unet.forward = forward
    try:
        plain.features(z, sigma, text, again)
    finally:
        del unet.forward
    for tap in ends:
        seen[tap.name] = torch.stack([record.value for record in again.rows(tap.name)])
        found = torch.stack([record.value for record in recorder.rows(tap.name)])
        assert found.shape[0] == 3
        assert torch.allclose(found, seen[tap.name], atol=1e-4)
    untouched = Recorder.of(ends, full)
    backbone.features_beside(z, sigma, text, untouched, None)
    first = untouched.rows(ends[-1].name)[0].value
    assert not torch.allclose(first, recorder.rows(ends[-1].name)[0].value, atol=1e-2)
    after = model.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_rows_in_small_chunks_are_the_same(dp, backbone_of, head_of, few_sentences, monkeypatch):
    backbone = backbone_of()
    scorer = dp.scorer.DpIqa(backbone, head_of(backbone))
    expected = scorer.score(pictures(4)).values()
    fits = iter([4, 3])
    monkeypatch.setattr(backbone, "rows_that_fit", lambda *args, **kwargs: next(fits, 1))
    assert scorer.score(pictures(4)).values() == pytest.approx(expected, abs=1e-3)


def test_networks_that_run_out_of_memory_get_fewer_rows(dp, backbone_of, head_of, few_sentences):
    """Decoder and image adapter; one row that does not fit is an error as ever, and other errors pass at once."""
    backbone, seen = backbone_of(), []

    def small(most):
        def put(network):
            def run(*given):
                seen.append(len(given[0]))
                if type(network).__name__ != "TextAdapter" and len(given[0]) > most:
                    raise RuntimeError("CUDA out of memory.")
                return network(*given)

            return run

        return put

    head = head_of(backbone)
    expected = dp.scorer.DpIqa(backbone, head).score(pictures(4)).values()
    found = dp.scorer.DpIqa(backbone, head, place=small(1)).score(pictures(4)).values()
    assert found == pytest.approx(expected, abs=1e-3)
    assert {2, 1} <= set(seen)
    with pytest.raises(RuntimeError, match="out of memory"):
        dp.scorer.DpIqa(backbone, head, place=small(0)).score(pictures(4))


def test_text_and_image_adapters_move_the_score(dp, backbone_of, head_of, few_sentences):
    backbone = backbone_of()
    head = head_of(backbone)
    whole = dp.scorer.DpIqa(backbone, head).score(pictures(1))[0].value
    for changes in ({"text_hidden": 0}, {"image_width": 0}):
        less = dp.scorer.DpIqa(backbone, dp.head.grown(head, **changes)).score(pictures(1))[0].value
        assert abs(less - whole) > 1e-3


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_text_is_embedded_once(dp, backbone_of, head_of, few_sentences, tmp_path, family):
    """Once for a scorer; with a folder, once for a text encoder, also after a restart."""
    backbone = backbone_of(family)
    calls = []
    inner = backbone.embed
    backbone.embed = lambda prompts: calls.append(len(prompts)) or inner(prompts)
    head = head_of(backbone)
    calls.clear()
    options = dp.scorer.DpOptions(text_folder=tmp_path)
    scorer = dp.scorer.DpIqa(backbone, head, options)
    first = scorer.score(pictures(2)).values()
    assert sum(calls) == len(FEW)
    scorer.score(pictures(2))
    again = dp.scorer.DpIqa(backbone, head, options).score(pictures(2)).values()
    assert sum(calls) == len(FEW)
    assert again == pytest.approx(first, abs=1e-4)
    (kept,) = tmp_path.glob("*.safetensors")
    kept.write_bytes(b"torn")
    torn = dp.scorer.DpIqa(backbone, head, options).score(pictures(2)).values()
    assert torn == pytest.approx(first, abs=1e-4)
    assert sum(calls) == 2 * len(FEW)


def test_a_sentences_token_is_the_state_at_its_end(dp, backbone_of, tiny_clip):
    """For SD 1.x that is CLIP's pooled text before any projection; the whole sequence in one test."""
    backbone = backbone_of()
    found = dp.text.text_sequence(backbone, "end")
    assert tuple(found.tokens.shape) == (1485, 64)
    clip = tiny_clip("sd15")
    listed = dp.text.sentences()
    for place in (0, 777, 1484):
        pooled = clip.encode_from_tokens(clip.tokenize(listed[place]), return_pooled=True)[1][0]
        assert torch.allclose(found.tokens[place], pooled.float(), atol=1e-4)


def test_projected_text_needs_a_projection(dp, tiny_model, tiny, tiny_vae):
    from latent_critic.core.errors import MismatchedBackbone

    clip = tiny.clip("sd15")  # its own: it is changed below
    projection = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    with torch.no_grad():
        projection.normal_(generator=torch.Generator().manual_seed(0))
    backbone = dp.host.ResidualComfyBackbone(tiny_model("sd15"), clip, tiny_vae(0))
    text = backbone.text_features(["a photo", "a dog"])
    end = backbone.embed(["a photo", "a dog"])
    states = end.tokens[[0, 1], [last for _, last in end.text_tokens]]
    assert torch.allclose(text, states @ projection.T, atol=1e-3)
    with torch.no_grad():
        projection.copy_(torch.eye(64))
    with pytest.raises(MismatchedBackbone, match="projection"):
        backbone.text_features(["a photo"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_ranks_alike(dp, backbone_of, head_of, few_sentences, tiny_model, dtype):
    whole = backbone_of()
    head = head_of(whole)
    half = backbone_of(model=tiny_model("sd15", 0, dtype))
    a, b = (dp.scorer.DpIqa(backbone, head).score(pictures(6)).values() for backbone in (whole, half))
    spread = max(a) - min(a)
    assert max(abs(x - y) for x, y in zip(a, b, strict=True)) < 0.2 * spread


def test_a_file_gives_the_same_scores(dp, backbone_of, head_of, few_sentences, tmp_path):
    backbone = backbone_of()
    head = head_of(backbone)
    dp.file.rounded(head.nets)
    path = tmp_path / "head.safetensors"
    dp.file.save_dp_iqa(path, head)
    assert dp.file.is_dp_iqa(path)
    found = dp.file.load_dp_iqa(path)
    assert found.meta == head.meta
    assert found.digest() == head.digest()
    a, b = (dp.scorer.DpIqa(backbone, one).score(pictures(2)).values() for one in (head, found))
    assert a == b


@pytest.mark.parametrize("broken", ["missing", "torn", "other", "nan"])
def test_bad_files(dp, backbone_of, head_of, tmp_path, broken):
    from latent_critic.core.errors import UnreadableFile
    from safetensors.torch import save_file

    path = tmp_path / "head.safetensors"
    head = head_of(backbone_of())
    if broken == "nan":
        head.nets.QFD.fc3.bias.data.fill_(float("nan"))
    if broken != "missing":
        dp.file.save_dp_iqa(path, head)
    if broken == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    if broken == "other":
        save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UnreadableFile, match="DP-IQA head"):
        dp.file.load_dp_iqa(path)


def test_a_head_of_another_model_is_refused_with_what_differs(dp, backbone_of, head_of, few_sentences):
    from latent_critic.core.errors import MismatchedBackbone

    head = head_of(backbone_of())
    other = backbone_of(seed=7)
    with pytest.raises(MismatchedBackbone, match="fingerprint"):
        dp.scorer.DpIqa(other, head)
    allowed = dp.scorer.DpIqa(other, head, dp.scorer.DpOptions(override=True))
    batch = allowed.score(pictures(1))
    assert batch.spec.calibrated_on is None
    assert "rank" in batch[0].attributes["warnings"][0]
    with pytest.raises(MismatchedBackbone, match="family"):
        dp.scorer.DpIqa(backbone_of("sdxl"), head)
    options = dp.scorer.DpOptions(override=True)
    with pytest.raises(MismatchedBackbone, match="taps"):
        dp.scorer.DpIqa(backbone_of("sd15_three_scales"), head, options)
    shape = head.nets.shape
    wrong = replace(head, nets=dp.head.DpNets(replace(shape, down=(64, 64))))
    with pytest.raises(MismatchedBackbone, match="down levels are"):
        dp.scorer.DpIqa(backbone_of(), wrong)


def test_sizes_that_the_latents_cannot_have(dp, backbone_of, head_of):
    from latent_critic.core.errors import BadInput

    backbone = backbone_of()
    head = head_of(backbone)
    settings = replace(head.settings, side=500)
    with pytest.raises(BadInput, match=r"divisible by 8.*500.*Use 496"):
        dp.scorer.DpIqa(backbone, replace(head, settings=settings))


def test_odd_images_and_bad_ones(dp, backbone_of, head_of, few_sentences):
    """Sides that no stride divides are resized; what cannot be scored has a reason, and its mates their scores."""
    backbone = backbone_of()
    scorer = dp.scorer.DpIqa(backbone, head_of(backbone))
    nan = torch.full((3, 32, 32), float("nan"))
    batch = scorer.score([torch.rand(3, 61, 83), nan, torch.rand(3, 8, 300), torch.rand(3, 37, 37)])
    assert [score.ok for score in batch] == [True, False, False, True]
    assert "NaN" in batch[1].reason
    assert "16:1" in batch[2].reason
    assert batch[0].attributes["height"] % 8 == batch[0].attributes["width"] % 8 == 0


def test_interrupts_pass_through(dp, backbone_of, head_of, few_sentences):
    class Stop(Exception):
        pass

    def watch(done, total):
        raise Stop

    backbone = backbone_of()
    with pytest.raises(Stop):
        dp.scorer.DpIqa(backbone, head_of(backbone)).score(pictures(1), watch=watch)


def test_placed_by_comfyui_the_scores_are_the_same(dp, backbone_of, head_of, few_sentences):
    from latent_critic.core.hosts.comfyui.own_nets import place

    backbone = backbone_of()
    head = head_of(backbone)
    plain = dp.scorer.DpIqa(backbone, head).score(pictures(2)).values()
    with torch.inference_mode():
        placed = dp.scorer.DpIqa(backbone, head, place=place).score(pictures(2)).values()
    assert placed == pytest.approx(plain, abs=1e-4)


def test_a_score_is_one_encode_and_one_forward_as_the_bare_loop_states(pack, tiny, monkeypatch):
    """What is counted is what the speed report times; the text is embedded in neither."""
    speed = pack("core.benchmark.speed_dp_iqa")
    monkeypatch.setattr(pack("core.methods.dp_iqa_text"), "sentences", lambda: FEW)
    model, clip, vae = tiny.model("sd15"), tiny.clip("sd15"), tiny.vae()
    backbone = pack("core.hosts.comfyui.residuals").ResidualComfyBackbone(model, clip, vae)
    head = speed.random_head(backbone, 64)
    scorer = pack("core.methods.dp_iqa").DpIqa(backbone, head)
    image, calls = torch.rand(3, 64, 64), []
    scorer.score([image])
    network = model.model.diffusion_model
    hook = network.register_forward_pre_hook(lambda module, args: calls.append(("forward", args[0].shape[0])))
    encode, embed = vae.encode, clip.encode_from_tokens
    monkeypatch.setattr(vae, "encode", lambda pixels: calls.append(("encode", pixels.shape[0])) or encode(pixels))
    monkeypatch.setattr(clip, "encode_from_tokens", lambda *a, **k: calls.append(("text", 1)) or embed(*a, **k))
    scorer.score([image])
    of_scorer, calls[:] = list(calls), []
    speed.Bare(model, vae, head, torch.randn(1, 4, 64)).run(image)
    assert calls == of_scorer == [("encode", 1), ("forward", 1)]
    calls.clear()
    scorer.score([image, torch.rand(3, 80, 48), image])
    assert [sum(rows for name, rows in calls if name == what) for what in ("encode", "forward", "text")] == [3, 3, 0]
    hook.remove()
