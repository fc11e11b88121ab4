"""Texts longer than a transformer's encoders take: words that were cut off have no tokens."""

from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def make(comfyui, tiny, tiny_pipelines):
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone

    def build(family, change=None):
        pipe = tiny_pipelines.pipeline(family, tiny.model(family), tiny.vae(0, family=family))
        if change is not None:
            change(pipe)
        return DiffusersBackbone(pipe)

    return build


def with_t5(pipe):
    from comfy import sd1_clip
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    sizes = {"d_model": 192, "d_kv": 16, "d_ff": 64, "num_heads": 4, "num_layers": 1, "vocab_size": 32128}
    folder = Path(sd1_clip.__file__).parent
    pipe.tokenizer_3 = T5TokenizerFast.from_pretrained(folder / "text_encoders" / "t5_tokenizer")
    pipe.text_encoder_3 = T5EncoderModel(T5Config(**sizes)).eval().requires_grad_(False)


@pytest.mark.parametrize(("family", "room"), [("sd3", 76), ("flux", 511), ("wan21", 511)])
@pytest.mark.parametrize("word", ["cat", "lighthouse"])
def test_words_that_were_cut_have_no_tokens_and_are_told(make, caplog, family, room, word):
    count = 2 * room
    found = make(family, with_t5 if family == "sd3" else None).embed([f"{word} " * count, "a photo"])
    ends = [last for _, last in found.spans[0].values()]
    assert room - 3 < max(ends) <= room
    assert found.text_tokens[0] == (min(first for first, _ in found.spans[0].values()), max(ends))
    assert sorted(found.spans[0]) == list(range(len(ends)))  # the first words, none left out
    assert len(ends) < count
    assert f"A text of {count} words is cut after {len(ends)}" in caplog.text
    assert caplog.text.count("is cut after") == 1
    assert len(found.spans[1]) == 2


def test_a_text_that_just_fits_is_not_cut(make, caplog):
    backbone = make("sd3")
    assert len(backbone.embed(["photo " * 75]).spans[0]) == 75
    assert "is cut" not in caplog.text
    assert len(backbone.embed(["photo " * 76]).spans[0]) == 75
    assert "is cut" in caplog.text


def test_longer_texts_have_more_of_t5s_tokens_in_flux_as_in_comfyui(make, tiny_clip, caplog):
    from latent_critic.core.hosts.comfyui.text import TextEncoder

    backbone, texts = make("flux"), ["a photo", "a cat " * 150, "a dog"]
    found = backbone.embed(texts)
    theirs = TextEncoder(tiny_clip("flux"), backbone.family, None, None).embed(texts)
    assert found.lengths == theirs.lengths
    assert 256 == found.lengths[0] < found.lengths[1] < 512
    assert (found.spans, found.text_tokens) == (theirs.spans, theirs.text_tokens)
    assert "is cut" not in caplog.text
    for row, text in enumerate(texts):
        alone = backbone.embed([text])
        torch.testing.assert_close(found.tokens[row, : found.lengths[row]], alone.tokens[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.pooled[row], alone.pooled[0], rtol=1e-4, atol=1e-5)


def test_sd3_without_t5_has_clips_tokens_alone_as_in_comfyui(make, tiny_clip):
    """diffusers puts zeros in T5's place, which the attention would look at."""
    from latent_critic.core.hosts.comfyui.text import TextEncoder

    backbone = make("sd3")
    found = backbone.embed(["a sharp photo"])
    theirs = TextEncoder(tiny_clip("sd3"), backbone.family, None, None).embed(["a sharp photo"])
    assert found.tokens.shape == theirs.tokens.shape == (1, 77, 4096)
    assert found.lengths == theirs.lengths == (77,)
    assert float(found.tokens[:, :, :160].abs().min(-1).values.max()) > 0
    assert make("sd3", with_t5).embed(["a sharp photo"]).tokens.shape[1] == 2 * 77
    z = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x0 = backbone.denoise(z, torch.tensor([0.4]), found)
    assert x0.isfinite().all()
