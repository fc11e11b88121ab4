"""zero_shot through a real ComfyUI: tiny models of every family, in the dtypes that users load."""

import pytest
import torch

pytestmark = pytest.mark.host
SIDE = 64


@pytest.fixture(scope="session")
def scorer(pack, tiny, tiny_clip, tiny_vae):
    """Builder: (family, dtype, model=None, **options) → scorer at a side that tiny models are quick at."""
    zero_shot = pack("core.methods.zero_shot")
    backbone = pack("core.hosts.comfyui.backbone").ComfyBackbone

    def build(family="sd15", dtype=torch.float32, model=None, **options):
        model = model or tiny.model(family, 0, dtype)
        settings = zero_shot.ZeroShotOptions(**{"side": SIDE, **options})
        return zero_shot.ZeroShot(backbone(model, tiny_clip(family), tiny_vae(0)), options=settings)

    return build


def pictures(*sizes):
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(3, h, w, generator=generator) for h, w in sizes]


@pytest.mark.parametrize("family", ["sd15", "sd20", "sd20_v", "sdxl"])
def test_batch_mates_change_nothing(scorer, family):
    images = pictures((64, 64), (90, 50), (64, 64))
    judge = scorer(family)
    together = judge.score(images)
    assert all(score.ok for score in together)
    alone = [judge.score([image])[0].value for image in images]
    assert together.values() == pytest.approx(alone, abs=1e-4 * judge.spec.spread)
    assert len(set(together.values())) == 3


def test_forwards_of_few_rows_change_nothing(scorer):
    images = pictures((64, 64), (64, 64))
    assert scorer(most_rows=5).score(images).values() == pytest.approx(scorer().score(images).values(), abs=1e-4)


def test_same_model_same_scores_and_another_model_others(scorer, tiny):
    images = pictures((64, 64))
    value = scorer().score(images)[0].value
    assert scorer().score(images)[0].value == value
    other = scorer(model=tiny.model("sd15", 1))
    assert other.score(images)[0].value != value
    assert other.spec.backbone != scorer().spec.backbone


def test_weights_of_nan_are_a_reason(scorer, tiny):
    model = tiny.model("sd15")
    with torch.no_grad():
        model.model.diffusion_model.out[2].bias.fill_(float("nan"))
    score = scorer(model=model).score(pictures((64, 64)))[0]
    assert "half precision" in score.reason


def test_attention_alone_equals_the_full_forward(scorer):
    images = pictures((64, 64))
    both = scorer().score(images)[0].attributes["attention"]
    alone = scorer(noise_weight=0.0).score(images)[0].attributes["attention"]
    assert alone == pytest.approx(both, abs=1e-6)


def nested(value):
    """A copy of a structure's dicts and lists; what they hold is the same objects."""
    if isinstance(value, dict):
        return {key: nested(inner) for key, inner in value.items()}
    return [nested(inner) for inner in value] if isinstance(value, list) else value


def test_the_model_is_untouched(scorer, tiny):
    """Also what nodes hung on it: patches that ours are added to, and guidance that our clone does without."""
    from comfy.patcher_extension import WrappersMP

    model = tiny.model("sd15")
    model.set_model_output_block_patch(lambda h, skip, options: (h, skip))
    model.set_model_attn2_patch(lambda q, k, v, options: (q, k, v))
    model.set_model_sampler_cfg_function(lambda args: args["cond"])
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "users", lambda executor, *args, **kw: executor(*args, **kw))
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    options, wrappers = nested(model.model_options), nested(model.wrappers)
    assert scorer(model=model).score(pictures((64, 64)))[0].ok
    after = model.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert (model.model_options, model.wrappers) == (options, wrappers)
    assert not model.patches


def test_inside_inference_mode(scorer):
    with torch.inference_mode():
        inside = scorer().score(pictures((64, 64)))[0].value
    assert inside == pytest.approx(scorer().score(pictures((64, 64)))[0].value, abs=1e-5)


def test_comfyuis_interrupt_leaves_within_one_forward(scorer):
    import comfy.model_management as management

    seen = []

    def press_cancel(done, total):
        seen.append((done, total))
        management.interrupt_current_processing(True)

    with pytest.raises(management.InterruptProcessingException):
        scorer(most_rows=6).score(pictures((64, 64), (64, 64)), watch=press_cancel)
    assert len(seen) == 1
    management.interrupt_current_processing(False)
