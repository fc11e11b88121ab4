"""Many seeds under conditions, ControlNets, guiders and samplers of other people."""

from itertools import pairwise

import pytest
import torch

pytestmark = [
    pytest.mark.host,
]


def areas(words):
    """Two conditions with areas and one for part of the schedule."""
    (one,), (two,), (three,) = words("a cat"), words("a dog"), words("a tree")
    return [
        [one[0], {**one[1], "area": (8, 4, 0, 0), "strength": 1.0}],
        [two[0], {**two[1], "area": (8, 5, 0, 3), "strength": 0.7, "mask": torch.ones(1, 8, 8) * 0.5}],
        [three[0], {**three[1], "start_percent": 0.0, "end_percent": 0.4}],
    ]


def test_several_conditions_with_areas(racing, words, counted):
    (model, _), yes, no = counted(), areas(words), words("")
    task = racing.ksampler_task(model, yes, no, racing.empty(), [5, 6, 7], **racing.PLAN, sampler_name="euler")
    out = racing.run(task, ((2, 0.5),), racing.drop_to(2))
    for row in (1, 2):
        racing.same(out.latents[row : row + 1], racing.lone(model, 5 + row, yes, no, racing.empty()))


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


def test_a_control_net_sees_live_rows_only(racing, words, counted):
    (model, _), (cat,), no = counted(), words("a cat"), words("")
    control = Control(torch.full((1, 3, 64, 64), 0.4)).net
    control.rows.clear()
    yes = [[cat[0], {**cat[1], "control": control, "control_apply_to_uncond": True}]]
    out = racing.run(
        racing.ksampler_task(model, yes, no, racing.empty(), [5, 6, 7], **racing.PLAN, sampler_name="euler"),
        ((2, 0.5),),
        racing.drop_to(1),
    )
    assert control.rows[0] % 3 == 0
    assert control.rows[-1] <= 2
    racing.same(out.latents[2:], racing.lone(model, 7, yes, no, racing.empty()))
    plain = racing.lone(model, 7, [[cat[0], cat[1]]], no, racing.empty())
    assert float((plain - out.latents[2:]).abs().max()) > 1e-2


def test_conditions_of_several_images_are_sampled_seed_by_seed(racing, words, counted):
    (model, rows), (cat,), no = counted(), words("a cat"), words("")
    dog = words("a dog")[0]
    several = [[torch.cat([cat[0], dog[0]]), {"pooled_output": None}]]
    hints = [[cat[0], {**cat[1], "control": Control(torch.rand(2, 3, 64, 64)).net}]]
    for yes, why in ((several, "several images"), (hints, "ControlNet")):
        rows.clear()
        task = racing.ksampler_task(model, yes, no, racing.empty(), [5, 6], **racing.PLAN, sampler_name="euler")
        out = racing.run(task)
        assert why in out.alone
        assert out.live == (0, 1)
        assert out.asked == out.computed == 12
        for row in (0, 1):
            assert torch.equal(out.latents[row : row + 1], racing.lone(model, 5 + row, yes, no, racing.empty()))


def foreign(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """A sampler of somebody else that never shows an intermediate state."""
    for sigma, after in pairwise(sigmas):
        clean = model(x, sigma * x.new_ones(len(x)), **extra_args)
        x = clean + (x - clean) / sigma * after + torch.randn_like(x) * after * 0.1
    return x


def test_a_foreign_sampler_without_intermediate_states(racing, words, counted):
    from comfy.samplers import KSAMPLER

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    sigmas = torch.tensor([10.0, 5.0, 2.0, 0.5, 0.0])
    task = racing.custom_task(racing.guided(model, yes, no), KSAMPLER(foreign), sigmas, racing.empty(), [5, 6])
    out = racing.run(task, ((1, 0.5),), racing.drop_to())
    assert not out.called_back
    assert "not one of ComfyUI's own" in out.alone
    assert out.live == (0, 1)
    from comfy.sample import prepare_noise

    for row in (0, 1):
        noise = prepare_noise(torch.zeros(1, 4, 8, 8), 5 + row)
        with torch.inference_mode():
            start = torch.zeros(1, 4, 8, 8)
            alone = racing.guided(model, yes, no).sample(noise, start, KSAMPLER(foreign), sigmas, seed=5 + row)
        assert torch.equal(out.latents[row : row + 1], alone)


def test_custom_sampling_is_sampler_custom_advanced(comfyui, racing, words, counted):
    from comfy.samplers import sampler_object

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    guider, sigmas = racing.guided(model, yes, no), torch.tensor([12.0, 6.0, 3.0, 1.0, 0.3, 0.0])
    sampler = sampler_object("euler_ancestral")
    out = racing.run(
        racing.custom_task(guider, sampler, sigmas, racing.empty(), [5, 6, 7]), ((2, 0.5),), racing.drop_to(2)
    )
    kinds = comfyui.NODE_CLASS_MAPPINGS
    noise = kinds["RandomNoise"].execute(7).result[0]
    with torch.inference_mode():
        alone = kinds["SamplerCustomAdvanced"].execute(noise, guider, sampler, sigmas, racing.empty()).result[0]
    racing.same(out.latents[2:], alone["samples"])
    assert guider.model_patcher is model
    assert not model.wrappers


def test_a_guider_of_ones_own_is_asked(racing, words, counted):
    from comfy.samplers import CFGGuider, sampler_object

    class Halved(CFGGuider):
        def predict_noise(self, *args, **named):
            return 0.5 * super().predict_noise(*args, **named)

    (model, _), (yes, no) = counted(), (words("a cat"), words(""))
    guider = Halved(model)
    guider.set_conds(yes, no)
    sigmas = torch.tensor([12.0, 6.0, 3.0, 1.0, 0.0])
    out = racing.run(racing.custom_task(guider, sampler_object("euler"), sigmas, racing.empty(), [5, 6]))
    from comfy.sample import prepare_noise

    with torch.inference_mode():
        start = torch.zeros(1, 4, 8, 8)
        alone = guider.sample(prepare_noise(start, 6), start, sampler_object("euler"), sigmas, seed=6)
    assert torch.equal(out.latents[1:], alone)
    assert "was not measured" in out.alone
