"""The registry: which models are recognised, and what an unknown one is told."""

import pytest
from latent_critic.core.backbone.families import REGISTRY, ModelFacts, find_row, known_families, recognise
from latent_critic.core.errors import UnsupportedFamily


@pytest.mark.parametrize(
    ("facts", "name", "prediction", "size", "text"),
    [
        (ModelFacts("SD15", "eps", 4, 4), "sd15", "eps", 512, "clip_l"),
        (ModelFacts("SD15", "v", 4, 4), "sd15", "v", 512, "clip_l"),
        (ModelFacts("SD15", "eps", 9, 4), "sd15", "eps", 512, "clip_l"),
        (ModelFacts("SD20", "eps", 4, 4), "sd20", "eps", 512, "clip_h"),
        (ModelFacts("SD20", "v", 4, 4), "sd20", "v", 768, "clip_h"),
        (ModelFacts("SDXL", "eps", 4, 4), "sdxl", "eps", 1024, "clip_l+clip_g"),
        (ModelFacts("SSD1B", "eps", 4, 4), "sdxl", "eps", 1024, "clip_l+clip_g"),
    ],
)
def test_known_models(facts, name, prediction, size, text):
    family = recognise(facts)
    assert (family.name, family.prediction, family.native_size, family.text_layout) == (name, prediction, size, text)
    assert (family.latent_channels, family.latent_stride) == (4, 8)


@pytest.mark.parametrize(
    "facts",
    [
        ModelFacts("AuraFlow", "flow", 4, 4),
        ModelFacts("SDXLRefiner", "eps", 4, 4),
        ModelFacts("SD15_instructpix2pix", "eps", 8, 4),
        ModelFacts("SD15", "eps", 8, 4),
        ModelFacts("SD20", "x0", 4, 4),
    ],
)
def test_unknown_models_are_told_the_known_ones(facts):
    with pytest.raises(UnsupportedFamily) as raised:
        recognise(facts)
    message = str(raised.value)
    assert facts.config in message
    assert all(name in message for name in known_families())
    assert "Quality Judge" in message


@pytest.mark.parametrize(
    ("facts", "name", "size", "text", "patch"),
    [
        (ModelFacts("SD3", "flow", 16, 16), "sd3", 1024, "clip_l+clip_g+t5xxl", 2),
        (ModelFacts("Flux", "flow", 16, 16), "flux", 1024, "clip_l+t5xxl", 2),
        (ModelFacts("FluxSchnell", "flow", 16, 16), "flux", 1024, "clip_l+t5xxl", 2),
        (ModelFacts("Flux2", "flow", 128, 128), "flux2", 1024, "mistral3_24b|qwen3_4b|qwen3_8b", 1),
        (ModelFacts("Lumina2", "flow", 16, 16), "lumina2", 1024, "gemma2_2b", 2),
        (ModelFacts("ZImage", "flow", 16, 16), "zimage", 1024, "qwen3_4b", 2),
        (ModelFacts("QwenImage", "flow", 64, 16), "qwen_image", 1328, "qwen25_7b", 2),
        (ModelFacts("WAN21_T2V", "flow", 16, 16), "wan21", 640, "umt5xxl", 2),
    ],
)
def test_known_transformers(facts, name, size, text, patch):
    family = recognise(facts)
    assert (family.name, family.prediction, family.native_size) == (name, "flow", size)
    assert (family.text_layout, family.patch, family.size_step) == (text, patch, 16)
    assert size % family.size_step == 0


def test_no_model_fits_two_rows():
    for config in {config for row in REGISTRY for config in row.configs}:
        for prediction in ("eps", "v", "flow"):
            for channels in (4, 9, 16, 64, 128):
                facts = ModelFacts(config, prediction, channels, 4 if channels < 16 else min(channels, 16))
                takers = [row for row in REGISTRY if row.takes(facts)]
                assert len(takers) <= 1
                if takers:
                    assert find_row(facts) is takers[0]


def test_scorers_name_the_families_that_there_are():
    from latent_critic.core.methods import FAMILIES

    assert sorted(FAMILIES) == sorted(name for name in known_families() if name != "critic_ldm")
