"""Looks at a short run to the end: sharper than the predicted clean image, counted, without a trace in the winner."""

import pytest
import torch

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning:torchsde"),  # by a rounding error, always
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),  # ComfyUI's dpm_fast
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),  # ComfyUI's deis
]


@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize(
    "sampler", ["euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde", "lcm", "uni_pc", "er_sde"]
)
def test_the_winner_is_the_lone_run_to_the_last_bit(racing, words, counted, sampler, ahead):
    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    plan = {**racing.PLAN, "sampler_name": sampler}
    task = racing.ksampler_task(model, yes, no, racing.empty(), [5, 6, 7], **plan, at_once=1)
    without = racing.run(task, ((1, 0.7), (3, 0.5)), racing.drop_to(2, 1))
    rows.clear()
    look = racing.drop_to(2, 1)
    out = racing.run(task, ((1, 0.7), (3, 0.5)), look, ahead=ahead)
    assert sum(rows) == 2 * out.computed  # conditioned and unconditioned
    assert out.asked == without.asked
    steps = [entry[0] for entry in look.seen]
    live = [len(entry[3]) for entry in look.seen]
    extra = sum(n * len(racing.leaps(step, 6, ahead)) for n, step in zip(live, steps, strict=True))
    assert out.computed == without.computed + extra
    assert out.live == without.live == (2,)
    alone = racing.lone(model, 7, yes, no, racing.empty(), sampler)
    assert torch.equal(out.latents[2:], alone)


def test_no_sampler_feels_a_short_run(racing, words, counted):
    """Those that hang functions of their own on the model too, such as CFG++."""
    from comfy.samplers import SAMPLER_NAMES

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    alone, marks = [], ((1, 0.7), (2, 0.5))
    for sampler in SAMPLER_NAMES:
        plan = {**racing.PLAN, "steps": 4, "cfg": 1.5, "sampler_name": sampler}
        task = racing.ksampler_task(model, yes, no, racing.empty(), [6, 7], **plan, at_once=1)
        if task.why_alone:
            alone.append(sampler)
            continue
        assert not racing.why_none(task), sampler
        without = racing.run(task, marks, racing.drop_to(2, 1))
        out = racing.run(task, marks, racing.drop_to(2, 1), ahead=2)
        assert out.computed > without.computed, sampler
        assert out.live == without.live == (1,), sampler
        assert torch.equal(out.latents[1:], without.latents[1:]), sampler
    assert alone == ["dpm_adaptive"]


def test_many_rows_at_once_stay_within_the_tolerance(racing, words, counted):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    task = racing.ksampler_task(model, yes, no, racing.empty(), [5, 6, 7], **racing.PLAN, sampler_name="euler")
    out = racing.run(task, ((2, 0.5),), racing.drop_to(2), ahead=3)
    for row in out.live:
        racing.same(out.latents[row : row + 1], racing.lone(model, 5 + row, yes, no, racing.empty()))


@pytest.mark.parametrize("family", ["sd15", "sd20_v", "flux"])
def test_a_full_short_run_is_eulers_own(racing, words, counted, family):
    """With as many calls as there are levels left, nothing is left out: euler ends in the same latents."""
    (model, _), channels = counted(family), 16 if family == "flux" else 4
    if family == "flux":
        yes = no = racing.flow_words(model)
    else:
        yes, no = words("a cat", family), words("", family)
    task = racing.ksampler_task(model, yes, no, racing.empty(channels), [5, 6], **racing.PLAN, sampler_name="euler")
    look = racing.drop_to(2)
    out = racing.run(task, ((1, 1.0),), look, ahead=99)
    (entry,) = look.seen
    assert out.computed == out.asked + 2 * 5
    racing.same(entry[4], out.latents.float())


def test_each_call_more_comes_nearer_to_the_end(racing, words, counted):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    plan, far = {**racing.PLAN, "steps": 12}, []
    task = racing.ksampler_task(model, yes, no, racing.empty(), [1, 2], **plan, sampler_name="euler")
    for ahead in (0, 1, 3, 7):
        look = racing.drop_to(2)
        out = racing.run(task, ((1, 1.0),), look, ahead=ahead)
        far.append(float((look.seen[0][4] - out.latents).square().mean()))
    assert far == sorted(far, reverse=True)
    assert far[-1] < 0.5 * far[0]


def test_what_a_mask_keeps_is_kept(racing, words, counted):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1.0
    latent = {"samples": torch.randn(1, 4, 8, 8), "noise_mask": mask}
    plan = {**racing.PLAN, "denoise": 0.6}
    task = racing.ksampler_task(model, yes, no, latent, [5, 6], **plan, sampler_name="euler")
    look = racing.drop_to(1)
    out = racing.run(task, ((2, 0.5),), look, ahead=2)
    racing.same(look.seen[0][4][:, :, :2], latent["samples"][:, :, :2].expand(2, -1, -1, -1))
    racing.same(out.latents[1:], racing.lone(model, 6, yes, no, latent, denoise=0.6))


def test_where_it_would_leave_a_trace_there_is_none(racing, words, counted):
    from comfy.samplers import sampler_object
    from comfy_extras.nodes_apg import APG

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    euler, sigmas = sampler_object("euler"), torch.tensor([12.0, 6.0, 1.0, 0.0])

    def task(model, positive, levels=sigmas):
        guider = racing.guided(model, positive, no)
        return racing.custom_task(guider, euler, levels, racing.empty(), [5, 6])

    remembering = APG.execute(model, 1.0, 5.0, -0.5).result[0]
    hooked = [[yes[0][0], {**yes[0][1], "hooks": object()}]]
    reasons = [
        racing.why_none(each)
        for each in (task(model, yes), task(remembering, yes), task(model, hooked), task(model, yes, sigmas.flip(0)))
    ]
    assert reasons[0] == ""
    assert all(reasons[1:])
    out = racing.run(task(remembering, yes), ((1, 1.0),), racing.drop_to(2), ahead=2)
    assert out.computed == out.asked


@pytest.mark.parametrize("seeds", [[5], [5, 6]])
def test_a_step_cache_hears_nothing_of_it(racing, words, counted, seeds):
    """Neither with one candidate, nor where several are sampled one by one."""
    from comfy_extras.nodes_easycache import EasyCacheNode

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    cached = EasyCacheNode.execute(model, 0.9, 0.0, 1.0, False).result[0]
    task = racing.ksampler_task(cached, yes, no, racing.empty(), seeds, **racing.PLAN, sampler_name="euler")
    assert "a step cache" in racing.why_none(task)
    out = racing.run(task, ((1, 1.0), (3, 1.0)), racing.drop_to(*[1] * 2 * len(seeds)), ahead=2)
    for row, seed in enumerate(seeds):
        assert torch.equal(out.latents[row : row + 1], racing.lone(cached, seed, yes, no, racing.empty()))


def test_a_control_net_of_others_may_follow_the_steps(racing, words, counted):
    from comfy.controlnet import ControlBase

    class Following(ControlBase):
        pass

    (model, _), ((cat,), no) = counted(), (words("a cat"), words(""))
    behind = ControlBase()
    behind.previous_controlnet = Following()
    for control, refused in ((ControlBase(), False), (Following(), True), (behind, True)):
        yes = [[cat[0], {**cat[1], "control": control}]]
        task = racing.ksampler_task(model, yes, no, racing.empty(), [5, 6], **racing.PLAN, sampler_name="euler")
        assert ("(Following)" in racing.why_none(task)) == refused


def test_a_row_that_overflows_is_looked_at_as_predicted(racing, words, counted):
    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    task = racing.ksampler_task(model, yes, no, racing.empty(), [5, 6], **racing.PLAN, sampler_name="euler", at_once=1)
    plain, broken, whole = racing.drop_to(2), racing.drop_to(2), racing.drop_to(2)
    racing.run(task, ((1, 1.0),), plain)
    racing.run(task, ((1, 1.0),), whole, ahead=2)
    rows.clear()

    def overflow(module, args, named, out):
        return out * float("nan") if len(rows) == 3 else out  # the first leap of the first row

    model.model.diffusion_model.register_forward_hook(overflow, with_kwargs=True)
    racing.run(task, ((1, 1.0),), broken, ahead=2)
    found = broken.seen[0][4]
    assert torch.equal(found[0], plain.seen[0][4][0])
    assert torch.equal(found[1], whole.seen[0][4][1])
    assert not torch.equal(found[1], plain.seen[0][4][1])


def test_a_probe_hears_nothing_of_it(racing, words, counted):
    """What a probe reads of the sampling is the same: its levels lie on the way of the short run too."""
    from latent_critic.core.hosts.comfyui.probe import probe_model

    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    read = []
    for ahead in (0, 2):
        probed, probe = probe_model(model, (600, 300, 100))
        task = racing.ksampler_task(probed, yes, no, racing.empty(), [5, 6], **racing.PLAN, sampler_name="euler")
        rows.clear()
        out = racing.run(task, ((1, 1.0),), racing.drop_to(2), ahead=ahead)
        assert sum(rows) == 2 * out.computed
        (found, _) = probe.find(out.latents)
        assert len(found.run.visited) == 6  # once a step
        read.append(found.features(probe.plan))
    assert isinstance(read[0], torch.Tensor), read[0]
    assert torch.equal(*read)


def test_an_interrupt_ends_a_short_run(racing, words, counted):
    from comfy import model_management

    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))

    def press(module, args, named):
        model_management.interrupt_current_processing(len(rows) == 2)  # the first call after the first step

    model.model.diffusion_model.register_forward_pre_hook(press, with_kwargs=True)
    task = racing.ksampler_task(model, yes, no, racing.empty(), [5, 6], **racing.PLAN, sampler_name="euler")
    try:
        with pytest.raises(model_management.InterruptProcessingException):
            racing.run(task, ((1, 0.5),), racing.drop_to(1), ahead=4)
    finally:
        model_management.interrupt_current_processing(False)
    assert len(rows) == 2
    assert not model.wrappers
    assert model.model.current_patcher is None
