"""Prompt alignment on a tiny plain-torch denoiser: parity with loops, and the ladder of properties."""

import json
import math

import pytest
import torch
from latent_critic.core.backbone.schedule import sigma_of_timestep
from latent_critic.core.errors import BadInput
from latent_critic.core.methods.alignment import AlignmentOptions, PromptAlignment
from latent_critic.core.methods.alignment_picture import longest_side, word_pictures
from latent_critic.core.methods.contract import Scorer
from latent_critic.core.taps.recorder import Recorder
from latent_critic.core.taps.reducers import full

TEXT = "a red fox"
QUICK = AlignmentOptions(timesteps=(21, 57))


def pictures(*sizes, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, h, w, generator=generator) for h, w in sizes]


@pytest.fixture
def model(backbone, monkeypatch):
    """A backbone whose texts have a token a word, behind the start token."""
    from dataclasses import replace

    def make(**rest):
        found = backbone(**rest)
        embed = found.embed

        def with_spans(prompts):
            spans = tuple({place: (place + 1, place + 2) for place in range(len(text.split()))} for text in prompts)
            whole = tuple((1, 1 + len(words)) for words in spans)
            return replace(embed(prompts), spans=spans, text_tokens=whole)

        monkeypatch.setattr(found, "embed", with_spans)
        return found

    return make


def slowly(backbone, image, text, timesteps):
    """The words' numbers by loops in float64."""
    z, conditioning = backbone.encode(image[None]), backbone.embed([text])
    taps = [tap for tap in backbone.family.taps if tap.kind == "attention"]
    finest = (z.shape[2], z.shape[3])
    means = []
    for clean in (torch.zeros_like(z), z):
        sums = torch.zeros(len(text.split()), *finest, dtype=torch.float64)
        for t in timesteps:
            sigma = sigma_of_timestep(t)
            recorder = Recorder.of(taps, full)
            z_t = clean + sigma * backbone.noise(z.shape[1:], t)[None]
            backbone.features(z_t, torch.tensor([sigma]), conditioning, recorder)
            for tap in taps:
                record = recorder.rows(tap.name)[0]
                for word, (first, last) in conditioning.spans[0].items():
                    cells = torch.zeros(record.grid.h * record.grid.w, dtype=torch.float64)
                    for head in record.value.double():
                        for place, query in enumerate(head.tolist()):
                            whole = math.fsum(math.exp(value) for value in query)
                            cells[place] += math.fsum(math.exp(value) for value in query[first:last]) / whole
                    cells = cells.view(1, 1, record.grid.h, record.grid.w) / len(record.value)
                    sums[word] += torch.nn.functional.interpolate(cells, size=finest, mode="bilinear")[0, 0]
        means.append(sums / len(timesteps) / len(taps))
    return [math.log(float(means[1][word].mean() / means[0][word].mean())) for word in range(len(text.split()))]


def test_parity_with_a_slow_derivation(model):
    backbone = model()
    (image,) = pictures((64, 64))
    with torch.no_grad():
        expected = slowly(backbone, image, TEXT, (21, 57))
    (found,) = PromptAlignment(backbone, QUICK).align([image], [TEXT])
    assert found.words == ("a", "red", "fox")
    assert found.values == pytest.approx(expected, abs=1e-6)
    assert any(abs(value) > 1e-4 for value in expected)
    score = PromptAlignment(backbone, QUICK).score([image], [TEXT])[0]
    assert score.value == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert [row["word"] for row in score.attributes["words"]] == ["a", "red", "fox"]


@pytest.mark.parametrize("shape", [(64, 64), (32, 128), (200, 40)])
def test_constant_attention_gives_nothing_at_each_size(model, shape):
    backbone = model()
    for layer in backbone.unet.q:
        layer.weight.data.zero_()
        layer.bias.data.fill_(1.0)
    (found,) = PromptAlignment(backbone, QUICK).align(pictures(shape), [TEXT])
    assert found.values == pytest.approx([0.0] * 3, abs=1e-5)
    assert float(found.maps.abs().max()) < 1e-5


@pytest.mark.parametrize("shape", [(64, 64), (30, 110), (200, 40)])
def test_maps_have_the_pictures_aspect(model, shape):
    (found,) = PromptAlignment(model(), QUICK).align(pictures(shape), [TEXT])
    assert found.maps.shape[0] == 3
    assert found.maps.shape[1:] == (found.size[0] // 8, found.size[1] // 8)
    shown = torch.stack(list(word_pictures(pictures(shape)[0], found.maps)))
    assert shown.shape == (3, 3, *shape)
    assert 0.0 <= float(shown.min()) <= float(shown.max()) <= 1.0


def test_maps_are_bright_where_the_word_is():
    maps = torch.zeros(2, 4, 4)
    maps[0, 0, 0] = 2.0
    shown = torch.stack(list(word_pictures(torch.zeros(3, 16, 16), maps))).mean(1)
    assert float(shown[0, 0, 0]) > float(shown[0, 15, 15])
    assert float(shown[1, 0, 0]) == pytest.approx(float(shown[1, 15, 15]))


@pytest.mark.parametrize(
    ("shape", "expected"), [((1024, 2048), (256, 512)), ((4000, 1), (512, 1)), ((512, 9), (512, 9))]
)
def test_pictures_of_words_are_small_and_made_one_at_a_time(shape, expected):
    made = word_pictures(torch.full((3, *shape), 0.5), torch.zeros(3, 4, 4))
    assert iter(made) is made
    assert [tuple(shown.shape) for shown in made] == [(3, *expected)] * 3


def test_pictures_of_very_many_words_are_smaller():
    """A hundred images and twenty words hold 6 GB at 512 pixels."""
    assert (longest_side(0), longest_side(1), longest_side(300)) == (512, 512, 512)
    sides = [longest_side(count) for count in (400, 2000, 10_000, 10**6)]
    assert sides == sorted(sides, reverse=True)
    assert all(12 * count * side**2 <= 2**30 for count, side in zip((400, 2000, 10_000), sides, strict=False))
    assert sides[-1] == 64
    (shown,) = word_pictures(torch.full((3, 300, 200), 0.5), torch.zeros(1, 4, 4), longest=100)
    assert shown.shape == (3, 100, 67)


def test_blocks_of_images_change_nothing_and_bound_what_is_held(model, monkeypatch):
    from latent_critic.core.methods import alignment

    texts = [TEXT, "two words", TEXT, "one", "two words", TEXT, TEXT]
    images = pictures(*[(64, 64)] * len(texts))
    whole = PromptAlignment(model(), QUICK).align(images, texts)
    monkeypatch.setattr(alignment, "AT_ONCE", 2)
    backbone, encoded, seen = model(), [], []
    encode = backbone.encode
    monkeypatch.setattr(backbone, "encode", lambda pixels: encoded.append(len(pixels)) or encode(pixels))
    parts = PromptAlignment(backbone, QUICK).align(images, texts, watch=lambda *step: seen.append(step))
    assert encoded == [2, 2, 2, 1]
    assert sum(backbone.rows) == (len(texts) + 3) * 2  # nothing still once for each text
    assert seen[-1] == (4, 4)
    for one, other in zip(parts, whole, strict=True):
        assert one.words == other.words
        assert one.values == pytest.approx(other.values, abs=1e-6)
        assert torch.allclose(one.maps, other.maps, atol=1e-6)


@pytest.mark.parametrize("fit", [1, 3, 5, 1000])
def test_batch_mates_and_chunks_change_nothing(model, fit):
    images, texts = pictures((64, 64), (100, 50), (64, 64)), [TEXT, TEXT, "two words"]
    backbone = model(fit=fit)
    together = PromptAlignment(backbone, QUICK).score(images, texts).values()
    alone = [PromptAlignment(model(), QUICK).score([i], [t])[0].value for i, t in zip(images, texts, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert max(backbone.rows) <= fit


def test_nothing_is_read_once_for_a_text_and_forwards_end_early(model):
    backbone = model()
    PromptAlignment(backbone, QUICK).score(pictures((64, 64), (64, 64)), [TEXT, TEXT])
    assert backbone.rows == [3 * 2]
    assert (backbone.calls["features"], backbone.calls["denoise"]) == (1, 0)


def test_a_prompt_of_its_own_or_one_for_all(model):
    images = pictures((64, 64), (64, 64))
    scorer = PromptAlignment(model(), QUICK, prompt=TEXT)
    assert scorer.score(images).values() == scorer.score(images, [TEXT, TEXT]).values()
    assert isinstance(scorer, Scorer)
    assert scorer.spec.settings["prompt"] == TEXT
    assert not scorer.spec.calibrated
    assert "." not in scorer.spec.blind_to
    json.dumps(scorer.score(images).to_dict())


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_prompt_is_a_reason_and_the_others_get_scores(model, text):
    batch = PromptAlignment(model(), QUICK).score(pictures((64, 64), (64, 64)), [text, TEXT])
    assert "no words" in batch[0].reason
    assert batch[1].ok


@pytest.mark.parametrize("text", ["(a:1.2) ((red)) fox", "a (red:.5) fox", "(a:+1.) (red:-.5) fox"])
def test_weights_of_a_prompt_are_no_words(model, text):
    (found,) = PromptAlignment(model(), QUICK).align(pictures((64, 64)), [text])
    assert found.words == ("a", "red", "fox")


def test_broken_images_and_broken_models_are_reasons(model):
    nan = torch.full((3, 64, 64), math.nan)
    batch = PromptAlignment(model(), QUICK).score([nan, *pictures((64, 64))], [TEXT] * 2)
    assert [score.ok for score in batch] == [False, True]
    backbone = model()
    backbone.unet.q[0].bias.data.fill_(math.nan)
    assert "half precision" in PromptAlignment(backbone, QUICK).score(pictures((64, 64)), [TEXT])[0].reason
    silent = model(silent=("down.0.0", "up.0.0"))
    assert "not every cross-attention" in PromptAlignment(silent, QUICK).score(pictures((64, 64)), [TEXT])[0].reason
    partly = model(silent=("up.0.0",))
    assert "not every cross-attention" in PromptAlignment(partly, QUICK).score(pictures((64, 64)), [TEXT])[0].reason


def test_watch_counts_forwards(model):
    seen = []
    scorer = PromptAlignment(model(fit=2), QUICK, prompt=TEXT)
    scorer.score(pictures((64, 64)), watch=lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]


def test_blends_divide_by_the_spread_that_was_given_measured_or_agreed(model, tmp_path):
    from latent_critic.core.errors import UnreadableFile
    from latent_critic.core.methods.alignment_spread import MEASURED, pooled_spread, spread_on
    from latent_critic.core.methods.blend import blend

    backbone = model()
    told = {**json.loads(MEASURED.read_text()), "backbone": backbone.fingerprint.to_text(), "spread": 0.02}
    file = tmp_path / "alignment.json"
    file.write_text(json.dumps(told))
    steps = AlignmentOptions().timesteps
    assert spread_on(backbone, steps, None, 0.5, file).value == 0.5
    found = spread_on(backbone, steps, None, None, file)
    assert (found.value, found.source.split(":")[0]) == (0.02, "measured on this model")
    for other in ((steps[:2], None), (steps, 128)):
        assert spread_on(backbone, *other, None, file).value == 0.1
    assert "convention" in PromptAlignment(backbone).spec.settings["spread_is"]
    file.write_text("{")
    with pytest.raises(UnreadableFile, match="alignment"):
        spread_on(backbone, steps, None, None, file)
    batch = PromptAlignment(backbone, AlignmentOptions(timesteps=(21,), spread=0.02)).score(pictures((64, 64)), [TEXT])
    assert blend([batch])[0].value == pytest.approx(batch[0].value / 0.02)
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = float(rows.var(1).mean().sqrt())
    shifted = rows + torch.tensor([[0.0], [5.0], [-9.0]])
    assert pooled_spread(shifted.tolist()) == pytest.approx(expected)
    assert math.isnan(pooled_spread([[1.0]]))


def test_bad_input(model):
    backbone = model()
    with pytest.raises(BadInput, match="2 prompts"):
        PromptAlignment(backbone).score(pictures((64, 64), (64, 64)), [TEXT])
    with pytest.raises(BadInput, match="2 prompts"):
        PromptAlignment(backbone).score(pictures((64, 64), (64, 64)), TEXT)
    from dataclasses import replace

    backbone.family = replace(backbone.family, taps=())
    with pytest.raises(BadInput, match="without text cross-attention"):
        PromptAlignment(backbone)


@pytest.mark.parametrize("options", [{"timesteps": ()}, {"most_rows": 0}, {"side": 8}, {"spread": 0.0}], ids=repr)
def test_bad_options(options):
    with pytest.raises(BadInput, match="Expected"):
        AlignmentOptions(**options)
