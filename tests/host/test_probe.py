"""A probed model samples bit for bit as without, with not one call more, and records what plain hooks see."""

import pytest
import torch

pytestmark = pytest.mark.host
FAMILIES = ["sd15", "sd20", "sd20_v", "sdxl", "sd15_three_scales"]
LEVELS = (700, 300, 50)


@pytest.fixture
def texts(make_backbone):
    """(family, prompts) → CONDITIONING of each prompt."""

    def make(family, *prompts):
        found = make_backbone(family).embed(prompts)
        return [
            [[found.tokens[[row]], {} if found.pooled is None else {"pooled_output": found.pooled[[row]]}]]
            for row in range(len(prompts))
        ]

    return make


@pytest.fixture
def sample(texts):
    """KSampler's own function: (model, family, …) → latents."""

    def run(model, family="sd15", sampler="euler", cfg=5.0, steps=8, rows=2, seed=9, latent=None, **more):
        import comfy.sample

        conditions = texts(family, "a lighthouse", "blurry")
        clean = torch.zeros(rows, 4, 8, 12) if latent is None else latent
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            return comfy.sample.sample(
                model, noise, steps, cfg, sampler, "normal", *conditions, clean, disable_pbar=True, seed=seed, **more
            )

    return run


def probed(model, timesteps=LEVELS, **more):
    from latent_critic.core.hosts.comfyui.probe import probe_model

    return probe_model(model, timesteps, **more)


class Counter:
    """Counts every forward of the U-Net by a hook on the module: it knows nothing of wrappers."""

    def __init__(self, model):
        self.rows = []
        hook = model.model.diffusion_model.register_forward_pre_hook(lambda m, args: self.rows.append(len(args[0])))
        self.remove = hook.remove


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cfg", [1.0, 6.0])
def test_sampling_is_bit_identical_with_no_forward_more(tiny_model, sample, family, cfg):
    model = tiny_model(family)
    counter = Counter(model)
    plain = sample(model, family, cfg=cfg)
    without = list(counter.rows)
    clone, probe = probed(model)
    assert torch.equal(sample(clone, family, cfg=cfg), plain)
    counter.remove()
    assert counter.rows == 2 * without
    assert torch.equal(sample(model, family, cfg=cfg), plain)
    (first, second) = probe.find(plain)
    assert (first.row, second.row) == (0, 1)
    assert torch.isfinite(first.features(probe.plan)).all()


@pytest.mark.filterwarnings("ignore:Should have tb<=t1:UserWarning:torchsde")
@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m", "heun", "uni_pc", "dpmpp_sde", "lcm", "ddim"])
def test_every_sampler_is_left_alone(tiny_model, sample, sampler):
    model = tiny_model()
    clone, probe = probed(model)
    latents = sample(clone, sampler=sampler)
    assert torch.equal(sample(model, sampler=sampler), latents)
    assert all(torch.isfinite(found.features(probe.plan)).all() for found in probe.find(latents))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunked", [False, True])
def test_features_are_what_plain_hooks_see(tiny_model, sample, monkeypatch, family, chunked):
    """Each row of each branch; cond and uncond in one forward or, where memory is short, in two."""
    import comfy.model_management as management

    model = tiny_model(family)
    if chunked:
        none = lambda device=None, torch_free_too=False: (1, 1) if torch_free_too else 1  # noqa: E731
        monkeypatch.setattr(management, "get_free_memory", none)
    clone, probe = probed(model)
    network = model.model.diffusion_model
    seen = []

    def before(module, args, kwargs):
        options = kwargs.get("transformer_options") or next(a for a in reversed(args) if isinstance(a, dict))
        seen.append((float(options["sigmas"][0]), list(options["cond_or_uncond"]), {}))

    hooks = [network.register_forward_pre_hook(before, with_kwargs=True)]
    blocks = [("mid", network.middle_block), *((f"up.{i}", block) for i, block in enumerate(network.output_blocks))]
    for name, block in blocks:
        keep = lambda module, args, out, name=name: seen[-1][2].__setitem__(name, out.double())  # noqa: E731
        hooks.append(block[-1].register_forward_hook(keep))
    latents = sample(clone, family, rows=3)
    for hook in hooks:
        hook.remove()
    assert len(seen) == (16 if chunked else 8)
    found = probe.find(latents)
    for place, level in enumerate(probe.plan.sigmas):
        nearest = min({abs(torch.tensor(sigma / level).log()).item() for sigma, _, _ in seen})
        for sigma, chunks, values in seen:
            if abs(torch.tensor(sigma / level).log()).item() > nearest + 1e-6:
                continue
            assert found[0].run.used[place] == pytest.approx(sigma)
            for number, branch in enumerate(chunks):
                kept = found[0].run.features[(place, ("cond", "uncond")[branch])]
                at = 0
                for tap in probe.plan.taps:
                    maps = values[tap.name].chunk(len(chunks))[number].flatten(2)
                    mean = maps.mean(-1)
                    std = (maps - mean[..., None]).square().mean(-1).sqrt()
                    expected = torch.cat([mean, std], dim=1).float()
                    torch.testing.assert_close(kept[:, at : at + 2 * tap.channels], expected, rtol=1e-4, atol=1e-5)
                    at += 2 * tap.channels
                assert at == kept.shape[1] == probe.plan.length
    assert len({found[0].run.features[(place, "cond")].sum().item() for place in range(3)}) == 3
    cond, uncond = (found[0].run.features[(2, branch)] for branch in ("cond", "uncond"))
    assert not torch.allclose(cond, uncond)


def test_the_embedded_model(comfyui):
    """Eight latent channels, and ComfyUI's own CLIP tokenizer."""
    import comfy.sample
    from latent_critic.core.hosts.comfyui import embedded

    model, clip = embedded.load_model(), embedded.load_clip()
    clone, probe = probed(model)
    counter = Counter(model)
    texts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a lighthouse", "")]
    noise = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(3))

    def run(patcher):
        with torch.inference_mode():
            return comfy.sample.sample(
                patcher, noise, 8, 4.0, "dpmpp_2m", "karras", *texts, torch.zeros_like(noise), disable_pbar=True, seed=3
            )

    plain, calls = run(model), len(counter.rows)
    latents = run(clone)
    counter.remove()
    assert torch.equal(latents, plain)
    assert len(counter.rows) == 2 * calls
    assert all(torch.isfinite(found.features(probe.plan)).all() for found in probe.find(latents))


def test_batch_mates_and_order(tiny_model, sample):
    """Rows of a batch, in any order and one by one, are the rows that were sampled."""
    clone, probe = probed(tiny_model())
    latents = sample(clone, rows=4)
    order = [2, 0, 3]
    found = probe.find(latents[order])
    assert [one.row for one in found] == order
    (alone,) = probe.find(latents[1:2])
    assert alone.row == 1
    features = torch.stack([one.features(probe.plan) for one in probe.find(latents)])
    assert len({row.sum().item() for row in features}) == 4


def test_with_cfg_1_there_is_no_uncond(tiny_model, sample):
    clone, probe = probed(tiny_model())
    (found,) = probe.find(sample(clone, cfg=1.0, rows=1))
    assert torch.isfinite(found.features(probe.plan)).all()
    assert "cfg 1" in found.features(probe.plan, ("cond", "uncond"))
    (guided,) = probe.find(sample(clone, cfg=3.0, rows=1))
    assert len(guided.features(probe.plan, ("cond", "uncond"))) == 2 * len(guided.features(probe.plan))


def test_half_precision_copies_of_a_latent_are_known(tiny_model, sample):
    clone, probe = probed(tiny_model())
    latents = sample(clone)
    for dtype in (torch.float16, torch.bfloat16):
        assert [found.row for found in probe.find(latents.to(dtype))] == [0, 1]


def test_what_was_changed_after_sampling_is_a_reason(tiny_model, sample):
    clone, probe = probed(tiny_model())
    latents = sample(clone)
    for changed in (latents + 1e-3, latents[..., :-1], torch.nn.functional.interpolate(latents, scale_factor=2)):
        assert all("not what any of the probe's 1 samplings gave" in found for found in probe.find(changed))


def test_nothing_sampled_is_a_reason(tiny_model, sample):
    model = tiny_model()
    _, probe = probed(model)
    assert "connect Probe Model's MODEL" in probe.find(sample(model))[0]


def test_old_runs_are_dropped_and_say_so(tiny_model, sample):
    clone, probe = probed(tiny_model(), most_bytes=60_000)
    all_latents = [sample(clone, seed=seed) for seed in range(5)]
    last = probe.find(all_latents[-1])
    assert not isinstance(last[0], str)
    assert "dropped this run" in probe.find(all_latents[0])[0]
    assert probe._runs.bytes() <= 60_000
    one, small = probed(tiny_model(), most_bytes=1)
    assert not isinstance(small.find(sample(one))[0], str)


def test_a_level_that_sampling_never_visits_is_a_reason(tiny_model, sample):
    clone, probe = probed(tiny_model(), (700, 2))
    (found, _) = probe.find(sample(clone, steps=2))
    reason = found.features(probe.plan)
    assert "never came near" in reason
    assert "14.6" in reason


def test_an_interrupt_leaves_nothing_and_the_next_run_is_whole(tiny_model, sample):
    import comfy.model_management as management

    clone, probe = probed(tiny_model())

    def press_cancel(step, *rest):
        if step == 3:
            raise management.InterruptProcessingException

    with pytest.raises(management.InterruptProcessingException):
        sample(clone, callback=press_cancel)
    assert len(probe._runs) == 0
    latents = sample(clone)
    assert torch.isfinite(probe.find(latents)[0].features(probe.plan)).all()


def test_a_hires_second_pass_is_a_run_of_its_own(tiny_model, sample):
    clone, probe = probed(tiny_model(), (50,))
    first = sample(clone)
    larger = torch.nn.functional.interpolate(first, scale_factor=2)
    second = sample(clone, latent=larger, denoise=0.5, seed=4)
    a, b, lost = probe.find(first)[0], probe.find(second)[0], probe.find(larger)[0]
    assert (a.run.number, b.run.number) == (1, 2)
    assert isinstance(lost, str)
    assert not torch.allclose(a.features(probe.plan), b.features(probe.plan))
    other, lone = probed(tiny_model(), (50,))
    assert torch.equal(sample(other, latent=larger, denoise=0.5, seed=4), second)
    assert torch.equal(lone.find(second)[0].features(lone.plan), b.features(probe.plan))


def caching(model, skip):
    """A step-caching pack: a wrapper that hands out the last output instead of computing, at some calls."""
    from comfy.patcher_extension import WrappersMP

    clone, state = model.clone(), {"call": -1, "last": None}

    def wrapper(executor, x, *args, **kwargs):
        state["call"] += 1
        if state["call"] in skip and state["last"] is not None:
            return state["last"]
        state["last"] = executor(x, *args, **kwargs)
        return state["last"]

    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "a step cache", wrapper)
    return clone


@pytest.mark.parametrize("before", [True, False])
def test_step_caches_are_a_reason_not_a_crash(tiny_model, sample, before):
    model = tiny_model()
    skip = {5, 6, 7}
    clone, probe = probed(caching(model, skip) if before else model)
    latents = sample(clone if before else caching(clone, skip))
    assert torch.equal(sample(caching(model, skip)), latents)
    reason = probe.find(latents)[0].features(probe.plan)
    assert "without computing every block" in reason
    assert "caching" in reason


def test_skipped_blocks_are_a_reason(tiny_model, sample):
    """A pack that replays the deep blocks: some taps fire, others do not."""
    from comfy.patcher_extension import WrappersMP

    model = tiny_model().clone()

    def shallow(executor, x, *args, **kwargs):
        network = executor.class_obj
        kept = network.output_blocks
        network.output_blocks = torch.nn.ModuleList()
        try:
            return executor(x, *args, **kwargs)
        except RuntimeError:  # the shapes no longer fit its last layer
            return torch.zeros_like(x)
        finally:
            network.output_blocks = kept

    clone, probe = probed(model)
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "a block cache", shallow)
    assert "without computing every block" in probe.find(sample(clone))[0].features(probe.plan)


def test_packs_that_leave_rows_out_are_a_reason(tiny_model, sample):
    from comfy.patcher_extension import WrappersMP

    clone, probe = probed(tiny_model())

    def half(executor, x, timesteps, context=None, *args, **kwargs):
        out = torch.zeros_like(x)
        out[:3] = executor(x[:3], timesteps[:3], context[:3], *args, **kwargs)
        return out

    inner = clone.clone()
    wrappers = inner.wrappers[WrappersMP.DIFFUSION_MODEL]
    inner.wrappers[WrappersMP.DIFFUSION_MODEL] = {"rows": [half], **wrappers}
    assert "without computing every block" in probe.find(sample(inner))[0].features(probe.plan)


def test_guidance_that_asks_again_does_not_blur_the_record(tiny_model, sample):
    """Perturbed-attention guidance runs the same condition once more, with changed attention."""
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    model = tiny_model()
    clone, probe = probed(model, (999,), taps=("mid",))
    plain = sample(clone, cfg=1.0, steps=2)
    node = PerturbedAttentionGuidance()
    patch = getattr(node, "patch", None) or node.execute
    patched = patch(clone, 3.0)[0]
    guided = sample(patched, cfg=1.0, steps=2)
    assert not torch.equal(plain, guided)
    first, second = (probe.find(latents)[0].run for latents in (plain, guided))
    assert first.used == second.used
    assert torch.equal(first.features[(0, "cond")], second.features[(0, "cond")])


def test_guiders_that_number_their_conditions_otherwise(tiny_model, texts):
    """DualCFG gives the negative first and the positive last; both branches must be found all the same."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    model = tiny_model()
    clone, probe = probed(model, (999,))  # read in the first call, where all samplings have one input
    positive, middle, negative = texts("sd15", "a lighthouse", "a sheep", "blurry")
    noise = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(9))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 4)

    def run(guider):
        with torch.inference_mode():
            return guider.sample(
                noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True
            )

    dual = Guider_DualCFG(clone)
    dual.set_conds(positive, middle, negative)
    dual.set_cfg(3.0, 2.0)
    plain = comfy.samplers.CFGGuider(clone)
    plain.set_conds(positive, negative)
    plain.set_cfg(3.0)
    first, second = (probe.find(run(guider))[0].run.features for guider in (dual, plain))
    for branch in ("cond", "uncond"):
        torch.testing.assert_close(first[(0, branch)], second[(0, branch)], rtol=1e-4, atol=1e-5)


def test_area_conditions(tiny_model, texts):
    """Two positive conditions, one of them on an area: the branch is their mean, and nothing breaks."""
    import comfy.sample

    clone, probe = probed(tiny_model(), (700, 50))
    positive, second, negative = texts("sd15", "a lighthouse", "a sheep", "blurry")
    area = [[second[0][0], {**second[0][1], "area": (8, 6, 0, 0), "strength": 1.0}]]
    noise = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        latents = comfy.sample.sample(
            clone, noise, 8, 5.0, "euler", "normal", positive + area, negative, torch.zeros_like(noise),
            disable_pbar=True, seed=9,
        )  # fmt: skip
    (found, _) = probe.find(latents)
    assert torch.isfinite(found.features(probe.plan, ("cond", "uncond"))).all()


def test_a_scorer_on_the_probed_model_is_not_recorded(tiny_model, sample, make_backbone, call):
    model = tiny_model()
    clone, probe = probed(model)
    latents = sample(clone)
    backbone, plain = make_backbone(model=clone), make_backbone(model=model)
    assert torch.equal(backbone.denoise(*call(backbone)), plain.denoise(*call(plain)))
    assert len(probe._runs) == 1
    assert dict(backbone.identity) == dict(plain.identity)
    assert not isinstance(probe.find(latents)[0], str)


def test_the_users_model_is_untouched(tiny_model, sample, weights_of):
    model = tiny_model()
    before, options = weights_of(model), str(model.model_options)
    clone, _ = probed(model)
    sample(clone)
    after = weights_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert str(model.model_options) == options
    assert not model.wrappers
    network = model.model.diffusion_model
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in network.modules())


def test_two_probes_in_a_row_record_alike(tiny_model, sample):
    model = tiny_model()
    once, first = probed(model)
    twice, second = probed(once)
    latents = sample(twice)
    assert torch.equal(sample(model), latents)
    one, other = (probe.find(latents)[0].features(probe.plan) for probe in (first, second))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("timesteps", "taps"), [((), ()), ((50, 50), ()), ((1000,), ()), ((50,), ("nowhere",)), ((50,), ("down.0.0",))]
)
def test_bad_settings_are_refused_at_the_door(tiny_model, timesteps, taps):
    from latent_critic.core.errors import BadInput

    with pytest.raises(BadInput):
        probed(tiny_model(), timesteps, taps=taps)


def test_unknown_models_are_named(tiny_model):
    from latent_critic.core.errors import BadInput, UnsupportedFamily

    with pytest.raises(UnsupportedFamily):
        probed(tiny_model("unknown"))
    with pytest.raises(BadInput, match="a MODEL"):
        probed(None)
