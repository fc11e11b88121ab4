"""Many seeds in one sampler call: finished rows are what KSampler makes of each seed alone, dead rows cost nothing."""

import importlib
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),  # ComfyUI's dpm_fast
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning:torchsde"),  # by a rounding error, always
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),  # ComfyUI's deis
]
PLAN = {"steps": 6, "cfg": 3.0, "scheduler": "normal", "denoise": 1.0}
#: Samplers whose steps depend on the whole batch.
COUPLED = {"dpm_adaptive"}


@pytest.fixture
def host(comfyui, monkeypatch):
    monkeypatch.setattr("comfy.utils.PROGRESS_BAR_ENABLED", False)
    rooms = [
        importlib.import_module(f"latent_critic.core.hosts.comfyui.{name}") for name in ("best_of", "sampling_task")
    ]
    return SimpleNamespace(**{name: value for room in rooms for name, value in vars(room).items()})


@pytest.fixture
def words(tiny_clip):
    """Conditioning of a text for a family."""

    def encode(text, family="sd15"):
        clip = tiny_clip(family)
        return clip.encode_from_tokens_scheduled(clip.tokenize(text))

    return encode


@pytest.fixture
def counted(tiny_model):
    """A MODEL and the rows that its network really computes, counted by a hook inside it."""

    def make(family="sd15", seed=0):
        model, rows = tiny_model(family, seed), []
        model.model.diffusion_model.register_forward_pre_hook(
            lambda module, args, named: rows.append(len(args[0])), with_kwargs=True
        )
        return model, rows

    return make


def empty(channels=4, side=8, rows=1):
    return {"samples": torch.zeros(rows, channels, side, side)}


def drop_to(*kept):
    """At each look keep the first so many live rows; every look is noted."""
    seen, counts = [], list(kept)

    def on_look(moment, live):
        seen.append((moment.step, moment.sigma, moment.share, list(live), moment.clean(live)))
        return live[-counts.pop(0) :]

    on_look.seen = seen
    return on_look


def nothing(*_):
    pass


def run(host, task, marks=(), on_look=None, on_step=nothing):
    with torch.inference_mode():
        return host.sample(task, marks, on_look or drop_to(), on_step)


def lone(comfyui, model, seed, positive, negative, latent, sampler="euler", **plan):
    p = {**PLAN, **plan}
    which = (model, seed, p["steps"], p["cfg"], sampler, p["scheduler"], positive, negative, latent)
    with torch.inference_mode():
        return comfyui.common_ksampler(*which, denoise=p["denoise"])[0]["samples"]


def same(found, alone):
    """Within the promised tolerance."""
    assert found.shape == alone.shape
    assert float((found - alone).abs().max()) <= 1e-3 * float(alone.std())


def samplers():
    from comfy.samplers import KSampler

    return KSampler.SAMPLERS


def test_every_sampler_finishes_with_what_its_seed_makes_alone(host, comfyui, words, counted):
    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    together, per_seed, unshown = [], [], []
    for sampler in samplers():
        # cfg++ samplers are made for low guidance, at 3 they grow without bound.
        plan = {**PLAN, "cfg": 1.5, "sampler_name": sampler}
        task = host.ksampler_task(model, yes, no, empty(), [5, 6, 7, 8], **plan)
        rows.clear()
        look = drop_to(2, 1)
        out = run(host, task, ((2, 0.5), (4, 0.5)), look) if not task.why_alone else run(host, task)
        assert sum(rows) == 2 * out.computed, sampler
        (per_seed if out.alone else together).append(sampler)
        if not out.called_back:
            unshown.append(sampler)
        for row in out.live:
            alone = lone(comfyui, model, 5 + row, yes, no, empty(), sampler, cfg=1.5)
            same(out.latents[row : row + 1], alone)
        if not out.alone and look.seen:
            assert out.computed < out.asked, sampler
        if sampler in ("euler", "dpmpp_sde", "lcm", "uni_pc"):
            assert [len(entry[3]) for entry in look.seen] == [4, 2], sampler
            assert out.live == (3,)
    assert set(per_seed) == COUPLED
    assert unshown == []


def test_the_coupled_samplers_really_are(host, comfyui, words, counted):
    """Sampled together they would come out differently: what why_alone says is measured here."""
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    for sampler in COUPLED:
        task = host.ksampler_task(model, yes, no, empty(), [5, 6, 7, 8], **PLAN, sampler_name=sampler)
        out = host._Run(task, (), drop_to(), nothing).sampled("")
        far = [
            float((out.latents[row : row + 1] - lone(comfyui, model, 5 + row, yes, no, empty(), sampler)).abs().max())
            for row in range(4)
        ]
        assert max(far) > 1e-2


@pytest.mark.parametrize(
    "sampler", ["euler", "euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "lcm", "er_sde", "uni_pc"]
)
def test_one_row_at_a_time_is_the_same_to_the_last_bit(host, comfyui, words, counted, sampler):
    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    task = host.ksampler_task(model, yes, no, empty(), [5, 6, 7], **PLAN, sampler_name=sampler, at_once=1)
    out = run(host, task, ((3, 0.7),), drop_to(2))
    assert set(rows) == {2}
    for row in (1, 2):
        assert torch.equal(out.latents[row : row + 1], lone(comfyui, model, 5 + row, yes, no, empty(), sampler))


def test_rows_are_computed_in_pieces(host, comfyui, words, counted):
    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    task = host.ksampler_task(model, yes, no, empty(), [1, 2, 3, 4, 5], **PLAN, sampler_name="euler", at_once=2)
    out = run(host, task)
    assert rows == [4, 4, 2] * 6
    for row in range(5):
        same(out.latents[row : row + 1], lone(comfyui, model, 1 + row, yes, no, empty()))


def test_running_out_of_memory_halves_the_rows(host, comfyui, words, counted):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    from comfy import model_management

    sizes = []

    def small(module, args, named):
        sizes.append(len(args[0]))
        if len(args[0]) > 4:
            raise model_management.OOM_EXCEPTION("too many rows")

    model.model.diffusion_model.register_forward_pre_hook(small, with_kwargs=True)
    task = host.ksampler_task(model, yes, no, empty(), [1, 2, 3, 4], **PLAN, sampler_name="euler")
    out = run(host, task)
    assert sizes == [8] + [4, 4] * 6  # what was too much once is not tried again
    same(out.latents[3:], lone(comfyui, model, 4, yes, no, empty()))


@pytest.mark.parametrize("family", ["sd20_v", "sdxl", "sd15_inpaint", "flux"])
@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m_sde"])
def test_families(host, comfyui, words, counted, family, sampler):
    (model, rows) = counted(family)
    channels = 16 if family == "flux" else 4
    if family == "flux":
        yes = no = [[torch.randn(1, 7, 64), {"pooled_output": torch.randn(1, 32), "guidance": 3.0}]]
    else:
        yes, no = words("a cat", family), words("", family)
    task = host.ksampler_task(model, yes, no, empty(channels), [5, 6, 7], **PLAN, sampler_name=sampler)
    out = run(host, task, ((2, 0.5),), drop_to(2))
    assert out.computed == 3 * 2 + 2 * 4 < out.asked == 18
    assert sum(rows) == 2 * out.computed
    for row in (1, 2):
        same(out.latents[row : row + 1], lone(comfyui, model, 5 + row, yes, no, empty(channels), sampler))


def test_without_guidance_there_is_one_half(host, comfyui, words, counted):
    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    plan = {**PLAN, "cfg": 1.0}
    out = run(
        host, host.ksampler_task(model, yes, no, empty(), [1, 2], **plan, sampler_name="euler"), ((1, 0.5),), drop_to(1)
    )
    assert sum(rows) == out.computed == 2 + 5
    same(out.latents[1:], lone(comfyui, model, 2, yes, no, empty(), cfg=1.0))


def picture(rows=1, channels=4):
    return torch.randn(rows, channels, 8, 8, generator=torch.Generator().manual_seed(3))


MASK = torch.zeros(1, 64, 64)
MASK[:, 16:48, 16:48] = 1.0


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m"])
@pytest.mark.parametrize("family", ["sd15", "sd15_inpaint"])
def test_inpainting_a_picture(host, comfyui, words, counted, family, sampler):
    (model, _), (yes, no) = counted(family), (words("a cat"), words(""))
    latent = {"samples": picture(), "noise_mask": MASK}
    plan = {**PLAN, "denoise": 0.6}
    task = host.ksampler_task(model, yes, no, latent, [5, 6, 7, 8], **plan, sampler_name=sampler)
    out = run(host, task, ((2, 0.5), (4, 0.5)), drop_to(3, 2))
    assert out.live == (2, 3)
    for row in out.live:
        same(out.latents[row : row + 1], lone(comfyui, model, 5 + row, yes, no, latent, sampler, denoise=0.6))
    same(out.latents[3:][..., :2, :], latent["samples"][..., :2, :])


@pytest.mark.parametrize("masks", [1, 2, 3])
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_sde", "ddim"])
def test_a_batch_in_the_latent(host, comfyui, words, counted, masks, sampler):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    ramp = torch.linspace(0.2, 1.0, 3)[:masks, None, None]
    latent = {"samples": picture(3), "noise_mask": MASK * ramp, "batch_index": [4, 0, 2]}
    task = host.ksampler_task(model, yes, no, latent, [5, 6], **PLAN, sampler_name=sampler)
    look = drop_to(4) if not task.why_alone else None
    out = run(host, task, ((3, 0.7),) if look else (), look)
    assert len(out.latents) == len(out.noise) == 6
    for row in out.live:
        alone = lone(comfyui, model, 5 + row // 3, yes, no, latent, sampler)
        same(out.latents[row : row + 1], alone[row % 3 : row % 3 + 1])


def test_the_noise_is_that_of_the_seed(host, comfyui, words, counted):
    from comfy.sample import prepare_noise

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    latent = {**empty(rows=2), "batch_index": [3, 1]}
    out = run(host, host.ksampler_task(model, yes, no, latent, [9, 2**64 - 1], **PLAN, sampler_name="euler"))
    for place, seed in enumerate((9, 2**64 - 1)):
        assert torch.equal(out.noise[2 * place : 2 * place + 2], prepare_noise(latent["samples"], seed, [3, 1]))


def areas(words):
    """Two conditions with areas and one for part of the schedule."""
    (one,), (two,), (three,) = words("a cat"), words("a dog"), words("a tree")
    return [
        [one[0], {**one[1], "area": (8, 4, 0, 0), "strength": 1.0}],
        [two[0], {**two[1], "area": (8, 5, 0, 3), "strength": 0.7, "mask": torch.ones(1, 8, 8) * 0.5}],
        [three[0], {**three[1], "start_percent": 0.0, "end_percent": 0.4}],
    ]


def test_several_conditions_with_areas(host, comfyui, words, counted):
    (model, _), yes, no = counted(), areas(words), words("")
    task = host.ksampler_task(model, yes, no, empty(), [5, 6, 7], **PLAN, sampler_name="euler")
    out = run(host, task, ((2, 0.5),), drop_to(2))
    for row in (1, 2):
        same(out.latents[row : row + 1], lone(comfyui, model, 5 + row, yes, no, empty()))


class Control:
    """The least that ComfyUI takes for a ControlNet: adds its hint to the middle block's output, row by row."""

    def __init__(self, hints):
        import comfy.controlnet

        class Net(comfy.controlnet.ControlBase):
            rows = []  # noqa: RUF012 (one net a test)

            def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
                self.rows.append(len(x_noisy))
                hint = comfy.controlnet.broadcast_image_to(self.cond_hint_original, len(x_noisy), batched_number)
                return {"middle": [hint.mean((1, 2, 3))[:, None, None, None] * torch.ones(1, 128, 1, 1)], "output": []}

            def pre_run(self, model, percent_to_timestep_function):
                pass

            def get_models(self):
                return []

            def inference_memory_requirements(self, dtype):
                return 0

            def copy(self):
                return self

        self.net = Net()
        self.net.cond_hint_original = hints


def test_a_control_net_sees_live_rows_only(host, comfyui, words, counted):
    (model, _), (cat,), no = counted(), words("a cat"), words("")
    control = Control(torch.full((1, 3, 64, 64), 0.4)).net
    control.rows.clear()
    yes = [[cat[0], {**cat[1], "control": control, "control_apply_to_uncond": True}]]
    out = run(
        host,
        host.ksampler_task(model, yes, no, empty(), [5, 6, 7], **PLAN, sampler_name="euler"),
        ((2, 0.5),),
        drop_to(1),
    )
    assert control.rows[0] % 3 == 0
    assert control.rows[-1] <= 2
    same(out.latents[2:], lone(comfyui, model, 7, yes, no, empty()))
    plain = lone(comfyui, model, 7, [[cat[0], cat[1]]], no, empty())
    assert float((plain - out.latents[2:]).abs().max()) > 1e-2


def test_conditions_of_several_images_are_sampled_seed_by_seed(host, comfyui, words, counted):
    (model, rows), (cat,), no = counted(), words("a cat"), words("")
    dog = words("a dog")[0]
    several = [[torch.cat([cat[0], dog[0]]), {"pooled_output": None}]]
    hints = [[cat[0], {**cat[1], "control": Control(torch.rand(2, 3, 64, 64)).net}]]
    for yes, why in ((several, "several images"), (hints, "ControlNet")):
        rows.clear()
        task = host.ksampler_task(model, yes, no, empty(), [5, 6], **PLAN, sampler_name="euler")
        out = run(host, task)
        assert why in out.alone
        assert out.live == (0, 1)
        assert out.asked == out.computed == 12
        for row in (0, 1):
            assert torch.equal(out.latents[row : row + 1], lone(comfyui, model, 5 + row, yes, no, empty()))


def foreign(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """A sampler of somebody else that never shows an intermediate state."""
    for sigma, after in pairwise(sigmas):
        clean = model(x, sigma * x.new_ones(len(x)), **extra_args)
        x = clean + (x - clean) / sigma * after + torch.randn_like(x) * after * 0.1
    return x


def guided(comfyui, model, yes, no, cfg=3.0):
    from comfy.samplers import CFGGuider

    guider = CFGGuider(model)
    guider.set_conds(yes, no)
    guider.set_cfg(cfg)
    return guider


def test_a_foreign_sampler_without_intermediate_states(host, comfyui, words, counted):
    from comfy.samplers import KSAMPLER

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    sigmas = torch.tensor([10.0, 5.0, 2.0, 0.5, 0.0])
    task = host.custom_task(guided(comfyui, model, yes, no), KSAMPLER(foreign), sigmas, empty(), [5, 6])
    out = run(host, task, ((1, 0.5),), drop_to())
    assert not out.called_back
    assert "not one of ComfyUI's own" in out.alone
    assert out.live == (0, 1)
    from comfy.sample import prepare_noise

    for row in (0, 1):
        noise = prepare_noise(torch.zeros(1, 4, 8, 8), 5 + row)
        with torch.inference_mode():
            start = torch.zeros(1, 4, 8, 8)
            alone = guided(comfyui, model, yes, no).sample(noise, start, KSAMPLER(foreign), sigmas, seed=5 + row)
        assert torch.equal(out.latents[row : row + 1], alone)


def test_custom_sampling_is_sampler_custom_advanced(host, comfyui, words, counted):
    from comfy.samplers import sampler_object

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    guider, sigmas = guided(comfyui, model, yes, no), torch.tensor([12.0, 6.0, 3.0, 1.0, 0.3, 0.0])
    sampler = sampler_object("euler_ancestral")
    out = run(host, host.custom_task(guider, sampler, sigmas, empty(), [5, 6, 7]), ((2, 0.5),), drop_to(2))
    kinds = comfyui.NODE_CLASS_MAPPINGS
    noise = kinds["RandomNoise"].execute(7).result[0]
    with torch.inference_mode():
        alone = kinds["SamplerCustomAdvanced"].execute(noise, guider, sampler, sigmas, empty()).result[0]
    same(out.latents[2:], alone["samples"])
    assert guider.model_patcher is model
    assert not model.wrappers


def test_a_guider_of_ones_own_is_asked(host, comfyui, words, counted):
    from comfy.samplers import CFGGuider, sampler_object

    class Halved(CFGGuider):
        def predict_noise(self, *args, **named):
            return 0.5 * super().predict_noise(*args, **named)

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    guider = Halved(model)
    guider.set_conds(yes, no)
    sigmas = torch.tensor([12.0, 6.0, 3.0, 1.0, 0.0])
    out = run(host, host.custom_task(guider, sampler_object("euler"), sigmas, empty(), [5, 6]))
    from comfy.sample import prepare_noise

    with torch.inference_mode():
        start = torch.zeros(1, 4, 8, 8)
        alone = guider.sample(prepare_noise(start, 6), start, sampler_object("euler"), sigmas, seed=6)
    assert torch.equal(out.latents[1:], alone)
    assert "was not measured" in out.alone


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_sde", "uni_pc", "dpm_fast"])
def test_looks_come_where_they_are_due(host, comfyui, words, counted, sampler):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    plan = {**PLAN, "steps": 10}
    look = drop_to(4, 4)
    task = host.ksampler_task(model, yes, no, empty(), [1, 2, 3, 4], **plan, sampler_name=sampler)
    run(host, task, ((3, 0.5), (5, 0.5)), look)
    steps = [entry[0] for entry in look.seen]
    assert steps[0] >= 3
    assert len(steps) == 1 or steps[1] >= 5
    if sampler != "dpm_fast":
        assert steps == [3, 5]
    levels = [entry[1] for entry in look.seen]
    assert levels == sorted(levels, reverse=True)


def test_the_prediction_comes_nearer_to_the_end(host, comfyui, words, counted):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    plan, look = {**PLAN, "steps": 10}, drop_to(2, 2, 2)
    task = host.ksampler_task(model, yes, no, empty(), [1, 2], **plan, sampler_name="euler")
    out = run(host, task, ((2, 1.0), (6, 1.0), (9, 1.0)), look)
    far = [float((entry[4] - out.latents).square().mean()) for entry in look.seen]
    assert far == sorted(far, reverse=True)


def test_a_scorer_that_samples_with_the_same_model_changes_nothing(host, comfyui, words, counted):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    plain = drop_to(2)

    def meddling(moment, live):
        lone(comfyui, model, 99, no, yes, empty(side=12), "euler_ancestral", steps=2)
        comfyui_free()
        torch.randn(5)
        return plain(moment, live)

    def comfyui_free():
        from comfy import model_management

        model_management.unload_all_models()

    task = host.ksampler_task(model, yes, no, empty(), [5, 6, 7], **PLAN, sampler_name="euler_ancestral")
    out = run(host, task, ((2, 0.5),), meddling)
    for row in (1, 2):
        same(out.latents[row : row + 1], lone(comfyui, model, 5 + row, yes, no, empty(), "euler_ancestral"))


def test_an_interrupt_ends_it_and_leaves_the_host_as_it_was(host, comfyui, words, counted):
    import comfy.k_diffusion.sampling as k_samplers
    from comfy import model_management

    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    before = (k_samplers.default_noise_sampler, k_samplers.BrownianTreeNoiseSampler)

    def cancel(at, live):
        if at[0] == 1:
            model_management.interrupt_current_processing(True)

    task = host.ksampler_task(model, yes, no, empty(), [5, 6], **PLAN, sampler_name="dpmpp_sde")
    try:
        with pytest.raises(model_management.InterruptProcessingException):
            run(host, task, on_step=cancel)
    finally:
        model_management.interrupt_current_processing(False)
    assert len(rows) <= 4
    assert (k_samplers.default_noise_sampler, k_samplers.BrownianTreeNoiseSampler) == before
    assert not model.wrappers
    assert model.model.current_patcher is None


def test_the_model_is_the_same_to_the_bit(host, comfyui, words, counted, weights_of):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    before, alone = weights_of(model), lone(comfyui, model, 5, yes, no, empty())
    run(
        host, host.ksampler_task(model, yes, no, empty(), [5, 6], **PLAN, sampler_name="euler"), ((2, 0.5),), drop_to(1)
    )
    after = weights_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(lone(comfyui, model, 5, yes, no, empty()), alone)


@pytest.mark.parametrize("plan", [{"steps": 1}, {"denoise": 0.0}])
def test_schedules_without_room(host, comfyui, words, counted, plan):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    latent = {"samples": picture()}
    task = host.ksampler_task(model, yes, no, latent, [5, 6], **{**PLAN, **plan}, sampler_name="euler")
    look = drop_to()
    out = run(host, task, ((1, 0.5),), look)
    assert look.seen == []
    for row in (0, 1):
        same(out.latents[row : row + 1], lone(comfyui, model, 5 + row, yes, no, latent, **plan))


def test_bad_tasks_are_refused(host, comfyui, words, counted):
    from latent_critic.core.errors import BadInput

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    video = {"samples": torch.zeros(1, 4, 3, 8, 8)}
    for seeds, latent in (([], empty()), ([3, 3], empty()), ([3], empty(rows=0)), ([3], video)):
        with pytest.raises(BadInput):
            run(host, host.ksampler_task(model, yes, no, latent, seeds, **PLAN, sampler_name="euler"))
