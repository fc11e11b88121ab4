"""Taps of the real architectures, built without weights, against their published layouts."""

import pytest

pytestmark = pytest.mark.host

SD = {
    "model_channels": 320,
    "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}
SDXL = {
    "model_channels": 320,
    "channel_mult": [1, 2, 4],
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "context_dim": 2048,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
    "use_linear_in_transformer": True,
}


@pytest.fixture
def taps_of(tiny):
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from latent_critic.core.hosts.comfyui.unet_taps import context_width, unet_taps

    def build(**config):
        unet = UNetModel(**{**tiny.UNET, **config}, device="meta", operations=comfy.ops.disable_weight_init)
        found = unet_taps(unet).order
        kinds = {"width": context_width(unet)}
        for kind in ("feature", "attention"):
            kinds[kind] = [(tap.name, tap.channels, tap.stride) for tap in found if tap.kind == kind]
        return kinds

    return build


def test_sd15(taps_of):
    found = taps_of(**SD, context_dim=768, num_heads=8)
    channels = [1280, 1280, 1280, 1280, 1280, 1280, 640, 640, 640, 320, 320, 320]
    strides = [8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1, 1]
    expected = [(f"up.{i}", wide, stride) for i, (wide, stride) in enumerate(zip(channels, strides, strict=True))]
    assert found["feature"] == [("mid", 1280, 8), *expected]
    down = [(f"down.{level}.{i}", 8, 2**level) for level in range(3) for i in range(2)]
    up = [(f"up.{level}.{i}", 8, 2 ** (3 - level)) for level in range(1, 4) for i in range(3)]
    assert found["attention"] == [*down, ("mid.0", 8, 8), *up]
    assert len(found["attention"]) == 16
    assert found["width"] == 768


def test_sd20_has_heads_of_64(taps_of):
    found = taps_of(**SD, context_dim=1024, num_head_channels=64, num_heads=-1, use_linear_in_transformer=True)
    heads = [count for _, count, _ in found["attention"]]
    assert heads == [5, 5, 10, 10, 20, 20, 20, 20, 20, 20, 10, 10, 10, 5, 5, 5]
    assert found["width"] == 1024


def test_sdxl_names_every_layer_of_its_deep_transformers(taps_of):
    found = taps_of(**SDXL, num_head_channels=64, num_heads=-1)
    names = [name for name, _, _ in found["attention"]]
    assert len(names) == len(set(names)) == 70
    assert names[:5] == ["down.1.0.0", "down.1.0.1", "down.1.1.0", "down.1.1.1", "down.2.0.0"]
    assert names[24:34] == [f"mid.0.{i}" for i in range(10)]
    assert names[-2:] == ["up.1.2.0", "up.1.2.1"]
    assert {(count, stride) for _, count, stride in found["attention"]} == {(10, 2), (20, 4)}
    assert len(found["feature"]) == 10
    assert found["feature"][-1] == ("up.8", 320, 1)
