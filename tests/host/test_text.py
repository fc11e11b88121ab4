"""Texts through a real tokenizer and a small CLIP: rows, spans of words, cache."""

import pytest
import torch

pytestmark = pytest.mark.host


def words_at(clip, text, spans):
    """The text of each span, by turning its tokens back into letters."""
    chunks = next(iter(clip.tokenize(text).values()))
    flat = [int(token) for chunk in chunks for token, _ in chunk]
    part = next(
        value for name, value in vars(clip.tokenizer).items() if name.startswith("clip_") and name != "clip_name"
    )
    letters = [part.inv_vocab[token].replace("</w>", "") for token in flat]
    return {word: "".join(letters[first:last]) for word, (first, last) in spans.items()}


@pytest.mark.parametrize("family", ["sd15", "sd20", "sdxl"])
def test_spans_cover_the_tokens_of_their_words(make_backbone, tiny_clip, family):
    text = "An extraordinarily bioluminescent, (blurry:1.3) jellyfish-photo"
    conditioning = make_backbone(family).embed([text, "x"])
    expected = ["an", "extraordinarily", "bioluminescent,", "blurry", "jellyfish-photo"]
    found = words_at(tiny_clip(family), text, conditioning.spans[0])
    assert found == dict(enumerate(expected))
    first, last = conditioning.text_tokens[0]
    assert first == conditioning.spans[0][0][0] == 1
    assert last == conditioning.spans[0][4][1]
    assert conditioning.spans[1] == {0: (1, 2)}


def test_spans_beyond_the_first_chunk(make_backbone, tiny_clip):
    words = [f"word{number}" for number in range(60)]
    text = " ".join(words)
    (spans,) = make_backbone().embed([text]).spans
    found = words_at(tiny_clip("sd15"), text, spans)
    # a word that a chunk boundary cuts also spans the end and start marks between its halves
    whole = [word for word in words if found[words.index(word)] == word]
    assert len(whole) >= 58
    assert found[59] == "word59"


def test_an_empty_text_has_no_words(make_backbone):
    conditioning = make_backbone().embed([""])
    assert conditioning.tokens.shape == (1, 77, 64)
    assert conditioning.spans == ({},)
    assert conditioning.text_tokens == ((1, 1),)


def test_a_text_is_what_clip_text_encode_gives(make_backbone, tiny_clip):
    clip = tiny_clip("sdxl")
    conditioning = make_backbone("sdxl").embed(["a photo", "a very good photo"])
    with torch.no_grad():
        ((tokens, rest),) = clip.encode_from_tokens_scheduled(clip.tokenize("a very good photo"))
    assert torch.equal(conditioning.tokens[1], tokens[0])
    assert torch.equal(conditioning.pooled[1], rest["pooled_output"][0])


def test_each_text_is_encoded_once(make_backbone, tiny_clip, monkeypatch):
    clip, calls = tiny_clip("sd15"), []
    encode = clip.encode_from_tokens
    monkeypatch.setattr(clip, "encode_from_tokens", lambda *a, **k: calls.append(1) or encode(*a, **k))
    backbone = make_backbone()
    first = backbone.embed(["one", "two", "one"])
    again = backbone.embed(["two", "one"])
    assert len(calls) == 2
    assert torch.equal(first.tokens[[1, 0]], again.tokens)


def test_the_cache_has_an_end(make_backbone):
    backbone = make_backbone()
    for number in range(520):
        backbone._text._cache[f"text {number}"] = backbone._text._encoded("x")
    backbone.embed(["new"])
    assert "new" in backbone._text._cache
    assert len(backbone._text._cache) <= 522


def test_rows_repeat_with_everything_that_belongs_to_them(make_backbone):
    conditioning = make_backbone().embed(["short", "long " * 100])
    picked = conditioning.rows([1, 0, 1])
    assert picked.prompts == tuple(conditioning.prompts[row] for row in (1, 0, 1))
    assert picked.lengths == (154, 77, 154)
    assert picked.spans[1] == conditioning.spans[0]
    # the short text's tokens, and the same again
    assert torch.equal(picked.tokens[1, :77], picked.tokens[1, 77:])


@pytest.mark.parametrize("prompts", [[], "one text", [None], [3]])
def test_something_else_than_texts(make_backbone, prompts):
    from latent_critic.core.errors import BadInput

    with pytest.raises(BadInput, match="list of at least one text"):
        make_backbone().embed(prompts)


def test_a_clip_of_the_right_kind_but_another_width(tiny_model, tiny, monkeypatch):
    from latent_critic.core.errors import MismatchedBackbone
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    monkeypatch.setitem(tiny.ENCODERS, "clip_l", {**tiny.ENCODERS["clip_l"], "hidden_size": 96})
    backbone = ComfyBackbone(tiny_model("sd15"), tiny.clip("sd15"))
    with pytest.raises(MismatchedBackbone, match="token width is 64"):
        backbone.embed(["a"])


@pytest.mark.parametrize("wrong", ["x", 3, object()])
def test_what_is_no_clip_or_vae_says_so(tiny_model, wrong):
    from latent_critic.core.errors import BadInput
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    with pytest.raises(BadInput, match="Expected a CLIP; got"):
        ComfyBackbone(tiny_model("sd15"), wrong)
    with pytest.raises(BadInput, match="Expected a VAE; got"):
        ComfyBackbone(tiny_model("sd15"), None, wrong)
