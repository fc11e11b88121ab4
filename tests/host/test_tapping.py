"""Taps: equal to plain hooks on the same modules, at any size, in any chunks; early stop changes nothing."""

import logging
import time

import pytest
import torch

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.host

FAMILIES = ["sd15", "sd20", "sdxl", "sd15_three_scales"]


def of(backbone, kind, reducer, names=None):
    from latent_critic.core.taps.recorder import Recorder

    taps = [tap for tap in backbone.family.taps if tap.kind == kind and (names is None or tap.name in names)]
    return Recorder.of(taps, reducer)


def stacked(recorder, tap):
    return torch.stack([record.value for record in recorder.rows(tap)])


def hooked(backbone, model, arguments):
    """The same forward with plain forward hooks: block outputs, and q, k of every cross-attention."""
    unet = model.model.diffusion_model
    found, hooks = {}, []

    def keep(name):
        return lambda module, args, out: found.__setitem__(name, out.detach().clone())

    hooks.append(unet.middle_block[-1].register_forward_hook(keep("mid")))
    for number, block in enumerate(unet.output_blocks):
        hooks.append(block[-1].register_forward_hook(keep(f"up.{number}")))
    order = []
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            order.append(name)
            parts = [(f"{name}.{part}", getattr(module, part)) for part in ("to_q", "to_k")]
            hooks += [layer.register_forward_hook(keep(label)) for label, layer in parts]
    try:
        x0 = backbone.denoise(*arguments)
    finally:
        for hook in hooks:
            hook.remove()
    # modules are listed input, middle, output: the order of the forward
    order.sort(key=lambda name: ["input", "middle", "output"].index(name.split("_")[0]))
    return x0, found, order


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(8, 12), (7, 11)])
def test_features_equal_plain_hooks(tiny_model, make_backbone, call, family, size):
    from latent_critic.core.taps.reducers import full

    model = tiny_model(family)
    backbone = make_backbone(family, model)
    arguments = call(backbone, h=size[0], w=size[1])
    x0, found, _ = hooked(backbone, model, arguments)
    recorder = of(backbone, "feature", full)
    assert torch.equal(backbone.denoise(*arguments, recorder), x0)
    assert not recorder.silent()
    for request in recorder.requests:
        tap, expected = request.tap, found[request.tap.name]
        assert torch.equal(stacked(recorder, tap.name), expected), tap.name
        assert tap.channels == expected.shape[1]
        for record in recorder.rows(tap.name):
            assert (record.grid.h, record.grid.w) == tuple(expected.shape[-2:])
            assert record.grid.h == -(-size[0] // tap.stride)
            assert record.grid.w == -(-size[1] // tap.stride)
            assert record.sigma == pytest.approx(float(arguments[1][record.key.row]))


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_equals_an_independent_softmax(tiny_model, make_backbone, call, family):
    from latent_critic.core.taps.reducers import full, probabilities

    model = tiny_model(family)
    backbone = make_backbone(family, model)
    arguments = call(backbone)
    _, found, order = hooked(backbone, model, arguments)
    logits, chances = of(backbone, "attention", full), of(backbone, "attention", probabilities)
    backbone.features(*arguments, logits)
    backbone.features(*arguments, chances)
    assert len(order) == len(logits.requests)
    for name, request in zip(order, logits.requests, strict=True):
        tap = request.tap
        q, k = found[f"{name}.to_q"].double(), found[f"{name}.to_k"].double()
        width = q.shape[-1] // tap.channels
        for head in range(tap.channels):
            part = slice(head * width, (head + 1) * width)
            expected = torch.einsum("nqd,nkd->nqk", q[..., part], k[..., part]) / width**0.5
            torch.testing.assert_close(stacked(logits, tap.name)[:, head].double(), expected, rtol=1e-4, atol=1e-4)
            powers = (expected - expected.amax(-1, keepdim=True)).exp()
            expected = powers / powers.sum(-1, keepdim=True)
            torch.testing.assert_close(stacked(chances, tap.name)[:, head].double(), expected, rtol=1e-4, atol=1e-5)
        total = stacked(chances, tap.name).sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total))


def test_as_many_queries_as_tokens_are_no_trap(make_backbone, call, tiny_model):
    """SD 1.5's middle block at 448×704 has 7×11 = 77 queries, as many as there are tokens; here at 14×22."""
    from latent_critic.core.taps.reducers import full

    model = tiny_model("sd15")
    backbone = make_backbone("sd15", model)
    arguments = call(backbone, rows=1, h=14, w=22)
    _, found, order = hooked(backbone, model, arguments)
    recorder = of(backbone, "attention", full)
    backbone.denoise(*arguments, recorder)
    square = [record for record in recorder if record.value.shape[-2:] == (77, 77)]
    assert square
    for name, request in zip(order, recorder.requests, strict=True):
        q, k = found[f"{name}.to_q"], found[f"{name}.to_k"]
        q, k = (part.unflatten(-1, (request.tap.channels, -1)).transpose(1, 2) for part in (q, k))
        expected = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        torch.testing.assert_close(stacked(recorder, request.tap.name), expected, rtol=1e-4, atol=1e-4)


def test_448_by_704(make_backbone):
    from latent_critic.core.taps.recorder import Recorder, TapRequest
    from latent_critic.core.taps.reducers import mean_std, token_mass

    backbone = make_backbone("sd15_three_scales")
    arguments = (backbone.noise((1, 4, 56, 88), 0), torch.tensor([0.5]), backbone.embed(["a photo"]))
    reducers = {"feature": mean_std, "attention": token_mass}
    recorder = Recorder(tuple(TapRequest(tap, reducers[tap.kind]) for tap in backbone.family.taps))
    backbone.features(*arguments, recorder)
    assert not recorder.silent()
    for request in recorder.requests:
        (record,) = recorder.rows(request.tap.name)
        assert (record.grid.h, record.grid.w) == (56 // request.tap.stride, 88 // request.tap.stride)
        assert torch.isfinite(record.value).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_early_stop_changes_no_recorded_value(make_backbone, call, family):
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import full

    backbone = make_backbone(family)
    arguments = call(backbone)
    whole = Recorder.of(backbone.family.taps, full)
    backbone.denoise(*arguments, whole)
    for tap in backbone.family.taps:
        stopped = Recorder.of([tap], full)
        backbone.features(*arguments, stopped)
        assert {record.key.tap for record in stopped} == {tap.name}
        assert torch.equal(stacked(stopped, tap.name), stacked(whole, tap.name)), tap.name
    assert torch.equal(backbone.denoise(*arguments), backbone.denoise(*arguments, Recorder.of([tap], full)))


def test_early_stop_skips_the_later_blocks(make_backbone, call, tiny_model):
    from latent_critic.core.taps.reducers import mean

    model = tiny_model("sd15_three_scales")
    backbone = make_backbone("sd15_three_scales", model)
    arguments = call(backbone, h=16, w=16)
    ran = []
    blocks = model.model.diffusion_model.output_blocks
    hooks = [block[0].register_forward_hook(lambda *_, n=n: ran.append(n)) for n, block in enumerate(blocks)]
    try:
        for stop, skipped in (("mid", 0), ("up.0", 1), ("up.3", 4), ("up.5", 6)):
            ran.clear()
            backbone.features(*arguments, of(backbone, "feature", mean, [stop]))
            assert ran == list(range(skipped))
    finally:
        for hook in hooks:
            hook.remove()

    def seconds(work):
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - start)
        return best

    whole = seconds(lambda: backbone.denoise(*arguments))
    for stop in ("mid", "up.1", "up.3"):
        share = seconds(lambda stop=stop: backbone.features(*arguments, of(backbone, "feature", mean, [stop]))) / whole
        logger.info("stopping at %s takes %.2f of a full forward", stop, share)  # shown by -o log_cli=true


def test_rows_keep_their_numbers_in_chunks_and_groups(make_backbone, call, monkeypatch):
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import mean_std, token_mass

    backbone = make_backbone()
    arguments = call(backbone, rows=5, prompts=("good", "a long prompt " * 60, "bad"))
    feature = next(tap for tap in backbone.family.taps if tap.name == "up.1")
    attention = next(tap for tap in backbone.family.taps if tap.name == "up.1.0")

    def recorded():
        found = []
        for tap, reducer in ((feature, mean_std), (attention, token_mass)):
            recorder = Recorder.of([tap], reducer)
            backbone.features(*arguments, recorder)
            found.append([record.value for record in recorder.rows(tap.name)])
        return found

    expected = recorded()
    assert [len(rows) for rows in expected] == [5, 5]
    assert [len(value) for value in expected[1]] == [77, 231, 77, 77, 231]
    for size in (1, 2):
        monkeypatch.setattr(backbone, "rows_that_fit", lambda *args, size=size, **kwargs: size)
        for rows, wanted in zip(recorded(), expected, strict=True):
            for value, reference in zip(rows, wanted, strict=True):
                torch.testing.assert_close(value, reference, rtol=1e-4, atol=1e-5)


def test_calls_are_counted(make_backbone, call):
    from latent_critic.core.taps.reducers import mean

    backbone = make_backbone()
    arguments = call(backbone, rows=2)
    recorder = of(backbone, "feature", mean)
    backbone.denoise(*arguments, recorder)
    backbone.features(*arguments, recorder)
    assert recorder.calls == 2
    for tap in ("mid", "up.3"):
        for first, second in zip(recorder.rows(tap, 0), recorder.rows(tap, 1), strict=True):
            assert torch.equal(first.value, second.value)


@pytest.mark.parametrize("together", [True, False])
def test_branches_are_told_apart_in_a_guided_sampling(comfyui, tiny_model, make_backbone, monkeypatch, together):
    """The same taps in an ordinary sampling with CFG: cond and uncond rows, in one forward or two, as alone."""
    import comfy.sample
    import comfy.samplers
    from latent_critic.core.hosts.comfyui.unet_tapping import UNetTapping
    from latent_critic.core.hosts.comfyui.unet_taps import unet_taps
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import mean

    model, forwards = tiny_model("sd15"), []
    taps = unet_taps(model.model.diffusion_model)
    watched = model.clone()
    tapping = UNetTapping(taps, 4)
    tapping.install(watched)
    backbone = make_backbone(model=model)
    texts = backbone.embed(["good", "bad"])
    conditions = [[[texts.tokens[[row]], {"pooled_output": texts.pooled[[row]]}]] for row in (0, 1)]
    noise = backbone.noise((2, 4, 8, 8), 5)
    sigmas = torch.tensor([2.0, 0.0])
    recorder = Recorder.of([taps.features[0]], mean)
    sampler = comfy.samplers.sampler_object("euler")
    watched.set_model_input_block_patch(lambda h, options: forwards.append(options["cond_or_uncond"]) or h)
    if not together:
        monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e18)
    with tapping.recording(recorder, call=0, rows=[0, 1], stop=False), torch.no_grad():
        comfy.sample.sample_custom(
            watched, noise, 4.0, sampler, sigmas, *conditions, torch.zeros_like(noise), disable_pbar=True, seed=1
        )
    monkeypatch.undo()
    assert sorted(map(sorted, {tuple(kinds) for kinds in forwards})) == ([[0, 1]] if together else [[0], [1]])
    z_t = noise * 2.0
    for branch, row in (("cond", 0), ("uncond", 1)):
        lone = Recorder.of([taps.features[0]], mean)
        backbone.features(z_t, torch.tensor([2.0, 2.0]), texts.rows([row, row]), lone)
        for number in (0, 1):
            found = recorder.rows("mid", branch=branch)[number].value
            torch.testing.assert_close(found, lone.rows("mid")[number].value, rtol=1e-4, atol=1e-5)


def test_patches_of_the_users_model_stay_in_force(comfyui, tiny_model, make_backbone, call):
    from latent_critic.core.taps.reducers import full

    model = tiny_model("sd15")
    calls = []

    def override(func, *args, **kwargs):
        calls.append(1)
        return 0.5 * func(*args, **kwargs)

    changed = model.clone()
    changed.model_options["transformer_options"]["optimized_attention_override"] = override
    changed.set_model_output_block_patch(lambda h, hsp, options: (1.5 * h, hsp))
    backbone = make_backbone(model=changed)
    arguments = call(backbone, rows=1)
    x0, found, _ = hooked(backbone, model, arguments)
    assert calls
    assert not torch.allclose(x0, make_backbone(model=model).denoise(*arguments), atol=1e-3)
    recorder = of(backbone, "feature", full)
    assert torch.equal(backbone.denoise(*arguments, recorder), x0)
    for tap in ("mid", "up.0", "up.3"):  # the block's own output, before the patch scales it
        assert torch.equal(stacked(recorder, tap), found[tap])


def test_a_silenced_tap_is_reported_not_a_crash(tiny_model, make_backbone, call):
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import token_mass

    model = tiny_model("sd15").clone()
    model.set_model_attn2_replace(lambda q, k, v, options: v[:, :1].expand(-1, q.shape[1], -1), "middle", 0)
    backbone = make_backbone(model=model)
    recorder = Recorder.of([tap for tap in backbone.family.taps if tap.kind == "attention"], token_mass)
    backbone.denoise(*call(backbone), recorder)
    assert recorder.silent() == ["mid.0"]


def test_a_tap_of_another_model_is_refused(make_backbone, call):
    from latent_critic.core.backbone.contracts import Tap
    from latent_critic.core.errors import BadInput
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import mean

    backbone = make_backbone()
    with pytest.raises(BadInput, match=r"up\.11"):
        backbone.features(*call(backbone), Recorder.of([Tap("up.11", "feature", 320, 1)], mean))
