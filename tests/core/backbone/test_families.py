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
        ModelFacts("Flux", "flow", 16, 16),
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


def test_no_model_fits_two_rows():
    for config in {config for row in REGISTRY for config in row.configs}:
        for prediction in ("eps", "v", "flow"):
            for channels in (4, 9):
                facts = ModelFacts(config, prediction, channels, 4)
                takers = [row for row in REGISTRY if row.takes(facts)]
                assert len(takers) <= 1
                if takers:
                    assert find_row(facts) is takers[0]
