"""Many seeds in one sampler call: finished rows are what KSampler makes of each seed alone, dead rows cost nothing."""

import pytest
import torch

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),  # ComfyUI's dpm_fast
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning:torchsde"),  # by a rounding error, always
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),  # ComfyUI's deis
]
#: Samplers whose steps depend on the whole batch.
COUPLED = {"dpm_adaptive"}


def samplers():
    from comfy.samplers import KSampler

    return KSampler.SAMPLERS


def test_every_sampler_finishes_with_what_its_seed_makes_alone(racing, words, counted):
    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    together, per_seed, unshown = [], [], []
    for sampler in samplers():
        # cfg++ samplers are made for low guidance, at 3 they grow without bound.
        plan = {**racing.PLAN, "cfg": 1.5, "sampler_name": sampler}
        task = racing.ksampler_task(model, yes, no, racing.empty(), [5, 6, 7, 8], **plan)
        rows.clear()
        look = racing.drop_to(2, 1)
        out = racing.run(task, ((2, 0.5), (4, 0.5)), look) if not task.why_alone else racing.run(task)
        assert sum(rows) == 2 * out.computed, sampler
        (per_seed if out.alone else together).append(sampler)
        if not out.called_back:
            unshown.append(sampler)
        for row in out.live:
            alone = racing.lone(model, 5 + row, yes, no, racing.empty(), sampler, cfg=1.5)
            racing.same(out.latents[row : row + 1], alone)
        if not out.alone and look.seen:
            assert out.computed < out.asked, sampler
        if sampler in ("euler", "dpmpp_sde", "lcm", "uni_pc"):
            assert [len(entry[3]) for entry in look.seen] == [4, 2], sampler
            assert out.live == (3,)
    assert set(per_seed) == COUPLED
    assert unshown == []


def test_the_coupled_samplers_really_are(racing, words, counted):
    """Sampled together they would come out differently: what why_alone says is measured here."""
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    for sampler in COUPLED:
        task = racing.ksampler_task(model, yes, no, racing.empty(), [5, 6, 7, 8], **racing.PLAN, sampler_name=sampler)
        out = racing._Run(task, (), racing.drop_to(), racing.nothing).sampled("")
        far = [
            float(
                (out.latents[row : row + 1] - racing.lone(model, 5 + row, yes, no, racing.empty(), sampler)).abs().max()
            )
            for row in range(4)
        ]
        assert max(far) > 1e-2


@pytest.mark.parametrize(
    "sampler", ["euler", "euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "lcm", "er_sde", "uni_pc"]
)
def test_one_row_at_a_time_is_the_same_to_the_last_bit(racing, words, counted, sampler):
    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    task = racing.ksampler_task(
        model, yes, no, racing.empty(), [5, 6, 7], **racing.PLAN, sampler_name=sampler, at_once=1
    )
    out = racing.run(task, ((3, 0.7),), racing.drop_to(2))
    assert set(rows) == {2}
    for row in (1, 2):
        assert torch.equal(out.latents[row : row + 1], racing.lone(model, 5 + row, yes, no, racing.empty(), sampler))


def test_rows_are_computed_in_pieces(racing, words, counted):
    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    task = racing.ksampler_task(
        model, yes, no, racing.empty(), [1, 2, 3, 4, 5], **racing.PLAN, sampler_name="euler", at_once=2
    )
    out = racing.run(task)
    assert rows == [4, 4, 2] * 6
    for row in range(5):
        racing.same(out.latents[row : row + 1], racing.lone(model, 1 + row, yes, no, racing.empty()))


def test_running_out_of_memory_halves_the_rows(racing, words, counted):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    from comfy import model_management

    sizes = []

    def small(module, args, named):
        sizes.append(len(args[0]))
        if len(args[0]) > 4:
            raise model_management.OOM_EXCEPTION("too many rows")

    model.model.diffusion_model.register_forward_pre_hook(small, with_kwargs=True)
    task = racing.ksampler_task(model, yes, no, racing.empty(), [1, 2, 3, 4], **racing.PLAN, sampler_name="euler")
    out = racing.run(task)
    assert sizes == [8] + [4, 4] * 6  # what was too much once is not tried again
    racing.same(out.latents[3:], racing.lone(model, 4, yes, no, racing.empty()))


@pytest.mark.parametrize("family", ["sd20_v", "sdxl", "sd15_inpaint", "flux"])
@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m_sde"])
def test_families(racing, words, counted, family, sampler):
    (model, rows) = counted(family)
    channels = 16 if family == "flux" else 4
    if family == "flux":
        yes = no = racing.flow_words(model)
    else:
        yes, no = words("a cat", family), words("", family)
    task = racing.ksampler_task(model, yes, no, racing.empty(channels), [5, 6, 7], **racing.PLAN, sampler_name=sampler)
    out = racing.run(task, ((2, 0.5),), racing.drop_to(2))
    assert out.computed == 3 * 2 + 2 * 4 < out.asked == 18
    assert sum(rows) == 2 * out.computed
    for row in (1, 2):
        racing.same(out.latents[row : row + 1], racing.lone(model, 5 + row, yes, no, racing.empty(channels), sampler))


def test_without_guidance_there_is_one_half(racing, words, counted):
    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    plan = {**racing.PLAN, "cfg": 1.0}
    out = racing.run(
        racing.ksampler_task(model, yes, no, racing.empty(), [1, 2], **plan, sampler_name="euler"),
        ((1, 0.5),),
        racing.drop_to(1),
    )
    assert sum(rows) == out.computed == 2 + 5
    racing.same(out.latents[1:], racing.lone(model, 2, yes, no, racing.empty(), cfg=1.0))


def picture(rows=1, channels=4):
    return torch.randn(rows, channels, 8, 8, generator=torch.Generator().manual_seed(3))


MASK = torch.zeros(1, 64, 64)
MASK[:, 16:48, 16:48] = 1.0


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m"])
@pytest.mark.parametrize("family", ["sd15", "sd15_inpaint"])
def test_inpainting_a_picture(racing, words, counted, family, sampler):
    (model, _), (yes, no) = counted(family), (words("a cat"), words(""))
    latent = {"samples": picture(), "noise_mask": MASK}
    plan = {**racing.PLAN, "denoise": 0.6}
    task = racing.ksampler_task(model, yes, no, latent, [5, 6, 7, 8], **plan, sampler_name=sampler)
    out = racing.run(task, ((2, 0.5), (4, 0.5)), racing.drop_to(3, 2))
    assert out.live == (2, 3)
    for row in out.live:
        racing.same(out.latents[row : row + 1], racing.lone(model, 5 + row, yes, no, latent, sampler, denoise=0.6))
    racing.same(out.latents[3:][..., :2, :], latent["samples"][..., :2, :])


@pytest.mark.parametrize("masks", [1, 2, 3])
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_sde", "ddim"])
def test_a_batch_in_the_latent(racing, words, counted, masks, sampler):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    ramp = torch.linspace(0.2, 1.0, 3)[:masks, None, None]
    latent = {"samples": picture(3), "noise_mask": MASK * ramp, "batch_index": [4, 0, 2]}
    task = racing.ksampler_task(model, yes, no, latent, [5, 6], **racing.PLAN, sampler_name=sampler)
    look = racing.drop_to(4) if not task.why_alone else None
    out = racing.run(task, ((3, 0.7),) if look else (), look)
    assert len(out.latents) == len(out.noise) == 6
    for row in out.live:
        alone = racing.lone(model, 5 + row // 3, yes, no, latent, sampler)
        racing.same(out.latents[row : row + 1], alone[row % 3 : row % 3 + 1])


def test_the_noise_is_that_of_the_seed(racing, words, counted):
    from comfy.sample import prepare_noise

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    latent = {**racing.empty(rows=2), "batch_index": [3, 1]}
    out = racing.run(racing.ksampler_task(model, yes, no, latent, [9, 2**64 - 1], **racing.PLAN, sampler_name="euler"))
    for place, seed in enumerate((9, 2**64 - 1)):
        assert torch.equal(out.noise[2 * place : 2 * place + 2], prepare_noise(latent["samples"], seed, [3, 1]))


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_sde", "uni_pc", "dpm_fast"])
def test_looks_come_where_they_are_due(racing, words, counted, sampler):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    plan = {**racing.PLAN, "steps": 10}
    look = racing.drop_to(4, 4)
    task = racing.ksampler_task(model, yes, no, racing.empty(), [1, 2, 3, 4], **plan, sampler_name=sampler)
    racing.run(task, ((3, 0.5), (5, 0.5)), look)
    steps = [entry[0] for entry in look.seen]
    assert steps[0] >= 3
    assert len(steps) == 1 or steps[1] >= 5
    if sampler != "dpm_fast":
        assert steps == [3, 5]
    levels = [entry[1] for entry in look.seen]
    assert levels == sorted(levels, reverse=True)


def test_the_prediction_comes_nearer_to_the_end(racing, words, counted):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    plan, look = {**racing.PLAN, "steps": 10}, racing.drop_to(2, 2, 2)
    task = racing.ksampler_task(model, yes, no, racing.empty(), [1, 2], **plan, sampler_name="euler")
    out = racing.run(task, ((2, 1.0), (6, 1.0), (9, 1.0)), look)
    far = [float((entry[4] - out.latents).square().mean()) for entry in look.seen]
    assert far == sorted(far, reverse=True)


def test_a_scorer_that_samples_with_the_same_model_changes_nothing(racing, words, counted):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    plain = racing.drop_to(2)

    def meddling(moment, live):
        racing.lone(model, 99, no, yes, racing.empty(side=12), "euler_ancestral", steps=2)
        comfyui_free()
        torch.randn(5)
        return plain(moment, live)

    def comfyui_free():
        from comfy import model_management

        model_management.unload_all_models()

    task = racing.ksampler_task(
        model, yes, no, racing.empty(), [5, 6, 7], **racing.PLAN, sampler_name="euler_ancestral"
    )
    out = racing.run(task, ((2, 0.5),), meddling)
    for row in (1, 2):
        racing.same(out.latents[row : row + 1], racing.lone(model, 5 + row, yes, no, racing.empty(), "euler_ancestral"))


def test_an_interrupt_ends_it_and_leaves_the_host_as_it_was(racing, words, counted):
    import comfy.k_diffusion.sampling as k_samplers
    from comfy import model_management

    (model, rows), (yes, no) = counted(), (words("a cat"), words(""))
    before = (k_samplers.default_noise_sampler, k_samplers.BrownianTreeNoiseSampler)

    def cancel(at, live):
        if at[0] == 1:
            model_management.interrupt_current_processing(True)

    task = racing.ksampler_task(model, yes, no, racing.empty(), [5, 6], **racing.PLAN, sampler_name="dpmpp_sde")
    try:
        with pytest.raises(model_management.InterruptProcessingException):
            racing.run(task, on_step=cancel)
    finally:
        model_management.interrupt_current_processing(False)
    assert len(rows) <= 4
    assert (k_samplers.default_noise_sampler, k_samplers.BrownianTreeNoiseSampler) == before
    assert not model.wrappers
    assert model.model.current_patcher is None


def test_the_model_is_the_same_to_the_bit(racing, words, counted, weights_of):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    before, alone = weights_of(model), racing.lone(model, 5, yes, no, racing.empty())
    racing.run(
        racing.ksampler_task(model, yes, no, racing.empty(), [5, 6], **racing.PLAN, sampler_name="euler"),
        ((2, 0.5),),
        racing.drop_to(1),
    )
    after = weights_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(racing.lone(model, 5, yes, no, racing.empty()), alone)


@pytest.mark.parametrize("plan", [{"steps": 1}, {"denoise": 0.0}])
def test_schedules_without_room(racing, words, counted, plan):
    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    latent = {"samples": picture()}
    task = racing.ksampler_task(model, yes, no, latent, [5, 6], **{**racing.PLAN, **plan}, sampler_name="euler")
    look = racing.drop_to()
    out = racing.run(task, ((1, 0.5),), look)
    assert look.seen == []
    for row in (0, 1):
        racing.same(out.latents[row : row + 1], racing.lone(model, 5 + row, yes, no, latent, **plan))


def test_bad_tasks_are_refused(racing, words, counted):
    from latent_critic.core.errors import BadInput

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    video = {"samples": torch.zeros(1, 4, 3, 8, 8)}
    for seeds, latent in (([], racing.empty()), ([3, 3], racing.empty()), ([3], racing.empty(rows=0)), ([3], video)):
        with pytest.raises(BadInput):
            racing.run(racing.ksampler_task(model, yes, no, latent, seeds, **racing.PLAN, sampler_name="euler"))
