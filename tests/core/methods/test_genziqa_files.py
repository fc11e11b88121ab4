"""GenzIQA heads in files: there and back, damaged, and the authors' layout in and out."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
from latent_critic.core.backbone.adaptation import CrossLora
from latent_critic.core.errors import BadInput, MismatchedBackbone, UnreadableFile
from latent_critic.core.methods.genziqa import GenzIQA
from latent_critic.core.methods.genziqa_authors import export_authors, import_authors
from latent_critic.core.methods.genziqa_file import KEY, load_genziqa, save_genziqa
from latent_critic.core.methods.genziqa_head import untrained
from latent_critic.core.methods.genziqa_settings import GenzIQAOptions, GenzSettings
from safetensors import safe_open
from safetensors.torch import load_file, save_file

PICTURE = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def model(backbone):
    return backbone()


@pytest.fixture
def head(model):
    found = untrained(model, GenzSettings(timesteps=(9, 57), offset=40.0, gain=2.0), context=2, rank=2)
    for _, up in found.lora.layers.values():
        up.normal_(generator=torch.Generator().manual_seed(1))
    return found


def test_there_and_back(model, head, tmp_path):
    save_genziqa(tmp_path / "head.safetensors", head)
    again = load_genziqa(tmp_path / "head.safetensors")
    assert again.digest() == head.digest()
    assert (again.meta, again.settings, again.taps, again.prompts.texts) == (
        head.meta, head.settings, head.taps, head.prompts.texts,
    )  # fmt: skip
    assert GenzIQA(model, again).score([PICTURE]).values() == GenzIQA(model, head).score([PICTURE]).values()


def test_half_the_file_holds_the_rounded_head(head, tmp_path):
    for name, half in (("whole", False), ("half", True)):
        save_genziqa(tmp_path / f"{name}.safetensors", head, half=half)
    found = load_genziqa(tmp_path / "half.safetensors")
    assert found.prompts.context["l"].dtype == torch.float32
    assert torch.equal(found.prompts.context["l"], head.prompts.context["l"].half().float())
    assert all(
        torch.equal(one, other.half().float())
        for where in head.lora.layers
        for one, other in zip(found.lora.layers[where], head.lora.layers[where], strict=True)
    )
    whole, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half"))
    saved = 2 * sum(value.numel() for pair in head.lora.layers.values() for value in pair)
    assert whole - half >= saved


def test_the_padding_mask_is_recorded(model, head, tmp_path):
    masked = replace(head, prompts=replace(head.prompts, padding_mask=True))
    save_genziqa(tmp_path / "head.safetensors", masked)
    again = load_genziqa(tmp_path / "head.safetensors")
    assert again.prompts.padding_mask
    assert again.digest() == masked.digest() != head.digest()
    assert GenzIQA(model, again).spec.settings["padding_mask"]
    damaged(tmp_path / "head.safetensors", padding_mask=False)
    assert load_genziqa(tmp_path / "head.safetensors").digest() == head.digest()


def test_the_metadata_say_what_a_reader_must_know(head, tmp_path):
    save_genziqa(tmp_path / "head.safetensors", head)
    with safe_open(tmp_path / "head.safetensors", framework="pt") as handle:
        told = json.loads(handle.metadata()[KEY])
    wanted = "format method kind family fingerprint taps sigmas reducers texts size_policy training_set pictures scale"
    for name in (*wanted.split(), "validation"):
        assert name in told, name
    assert told["kind"] == "prompts"
    assert told["settings"]["seed"] == 0


def damaged(path, **changes):
    with safe_open(path, framework="pt") as handle:
        told = json.loads(handle.metadata()[KEY])
    save_file(load_file(path), path, metadata={KEY: json.dumps({**told, **changes})})


def test_damaged_files_are_one_clear_error(head, tmp_path):
    path = tmp_path / "head.safetensors"
    with pytest.raises(UnreadableFile, match="no such file"):
        load_genziqa(path)
    save_genziqa(path, head)
    damaged(path, format=99)
    with pytest.raises(UnreadableFile, match="format 1"):
        load_genziqa(path)
    save_genziqa(path, head)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UnreadableFile):
        load_genziqa(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UnreadableFile, match="facts"):
        load_genziqa(path)
    broken = replace(head, prompts=replace(head.prompts, context={"l": torch.full((2, 16), math.nan)}))
    save_genziqa(path, broken)
    with pytest.raises(UnreadableFile, match="NaN"):
        load_genziqa(path)
    with pytest.raises(BadInput, match="safetensors"):
        save_genziqa(tmp_path / "head.pth", head)


def test_the_authors_layout_there_and_back(model, head, tmp_path):
    plain = replace(head.with_settings(gain=1.0), prompts=replace(head.prompts, padding_mask=True))
    context, lora = tmp_path / "context.pth", tmp_path / "lora.safetensors"
    export_authors(plain, model, context, lora)
    told = torch.load(context, weights_only=True)
    assert {name: list(value.shape) for name, value in told.items()} == {
        "ctx": [2, 16], "token_prefix": [2, 1, 16], "token_suffix": [2, 3, 16],
    }  # fmt: skip
    keys = set(load_file(lora))
    assert "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_q_lora.down.weight" in keys
    assert len(keys) == 2 * 3 * 2
    found = import_authors(model, context, lora, training_set="FLIVE", calibrated_on="photographs", side=64)
    assert found.digest() == plain.digest()
    assert found.prompts.texts == ("Good Photo.", "Bad Photo.")
    assert (found.settings.square, found.settings.value_range, found.settings.side) == (True, "clip", 64)
    assert GenzIQA(model, found).spec.calibrated


def test_the_imported_score_is_the_published_one(model, head, tmp_path):
    """Published: a sum over queries, so the mean over layers of ln(queries) / T comes on top of ours."""
    context, lora = tmp_path / "context.pth", tmp_path / "lora.safetensors"
    export_authors(head.with_settings(gain=1.0), model, context, lora)
    found = import_authors(model, context, lora, side=64)
    assert found.settings.offset == pytest.approx((math.log(64) + math.log(16)) / 2 / 0.14)
    score = GenzIQA(model, found).score([PICTURE])[0]
    assert score.value == pytest.approx(score.attributes["raw"] + found.settings.offset)


@pytest.mark.parametrize("side", [64, 128])
def test_the_imported_bias_is_the_published_norm_at_any_side(model, head, tmp_path, side):
    """Published: the plain norm of the flattened noise errors, whatever the latents' size."""
    context, lora = tmp_path / "context.pth", tmp_path / "lora.safetensors"
    export_authors(head.with_settings(gain=1.0), model, context, lora)
    found = import_authors(model, context, lora, side=side)
    picture = torch.rand(3, side, side, generator=torch.Generator().manual_seed(4))
    scorer = GenzIQA(model, found, GenzIQAOptions(timesteps=(9,)))
    score = scorer.score([picture])[0]
    adapted, (sigma,) = model.adapted(found.lora), scorer.spec.settings["sigmas"]
    z = found.settings.encode(model)(picture[None]).expand(2, -1, -1, -1)
    eps = model.noise(z.shape[1:], 9).expand_as(z)
    with torch.no_grad():
        x0 = adapted.denoise(z + sigma * eps, torch.full((2,), sigma), adapted.embed_soft(found.prompts))
    good, bad = (eps - (z + sigma * eps - x0) / sigma).flatten(1).norm(dim=1).tolist()
    assert abs(good - bad) > 1e-3
    assert score.attributes["raw"] - score.attributes["attention"] == pytest.approx(good - bad, rel=1e-3)


def test_prefixes_of_newer_diffusers_and_wrappers(model, head, tmp_path):
    context, lora = tmp_path / "context.pth", tmp_path / "lora.safetensors"
    export_authors(head, model, context, lora)
    told = torch.load(context, weights_only=True)
    torch.save({"state_dict": {f"prompt_learner.{name}": value.half() for name, value in told.items()}}, context)
    torch.save({f"unet.{name}": value for name, value in load_file(lora).items()}, tmp_path / "lora.bin")
    found = import_authors(model, context, tmp_path / "lora.bin", side=64)
    assert set(found.lora.layers) == set(head.lora.layers)


def changed(path, name, value):
    told = torch.load(path, weights_only=True) if path.suffix == ".pth" else load_file(path)
    told.pop(name, None)
    if value is not None:
        told[name] = value
    torch.save(told, path) if path.suffix == ".pth" else save_file(told, path)


@pytest.mark.parametrize(
    ("file", "name", "value", "error", "problem"),
    [
        ("context.pth", "ctx", None, BadInput, "ctx, token_prefix and token_suffix"),
        ("context.pth", "ctx", torch.zeros(2, 8), MismatchedBackbone, "ctx [N, 16]"),
        ("context.pth", "ctx", torch.zeros(3, 16), MismatchedBackbone, "token_suffix [2, 2, 16]"),
        ("context.pth", "token_suffix", torch.randn(2, 3, 16), MismatchedBackbone, "vectors of the loaded"),
        ("context.pth", "token_prefix", torch.zeros(2, 2, 16), MismatchedBackbone, "token_prefix [2, 1, 16]"),
        ("context.pth", "ctx", torch.full((2, 16), math.nan), BadInput, "NaN or infinite ones in ctx"),
        ("lora.safetensors", "{}attn2.processor.to_q_lora.up.weight", torch.full((16, 2), math.inf), BadInput, "NaN"),
        ("lora.safetensors", "mid.attn1.to_q", torch.zeros(1), BadInput, "LoRA of attn2"),
        ("lora.safetensors", "{}attn1.processor.to_q_lora.down.weight", torch.zeros(2, 16), BadInput, "LoRA of attn2"),
        ("lora.safetensors", "{}attn2.processor.to_q_lora.down.weight", None, BadInput, "both its halves"),
        ("lora.safetensors", "{}attn2.processor.to_q_lora.down.weight", torch.zeros(3, 16), BadInput, "share one rank"),
        ("lora.safetensors", "{}attn2.processor.to_q_lora.down.weight", torch.zeros(2, 9), MismatchedBackbone, "16"),
        ("lora.safetensors", "{}attn2.processor.to_out_lora.up.weight", torch.zeros(16, 2), BadInput, "both its"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(model, head, tmp_path, file, name, value, error, problem):
    export_authors(head, model, tmp_path / "context.pth", tmp_path / "lora.safetensors")
    changed(tmp_path / file, name.format("down_blocks.0.attentions.0.transformer_blocks.0."), value)
    with pytest.raises(error, match=re.escape(problem)):
        import_authors(model, tmp_path / "context.pth", tmp_path / "lora.safetensors", side=64)


def test_lora_of_some_matrices_only_names_the_others(model, head, tmp_path, caplog):
    context, lora = tmp_path / "context.pth", tmp_path / "lora.safetensors"
    export_authors(head, model, context, lora)
    import_authors(model, context, lora, side=64)
    assert "holds nothing" not in caplog.text
    kept = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_q_lora"
    save_file({name: value for name, value in load_file(lora).items() if name.startswith(kept)}, lora)
    found = import_authors(model, context, lora, side=64)
    assert set(found.lora.layers) == {("down.0.0", "q")}
    assert "for 5 of the model's matrices" in caplog.text
    assert "up.0.0 q" in caplog.text


class Pickled:
    pass


def test_a_pickle_with_more_than_tensors_is_not_run(model, tmp_path):
    torch.save({"ctx": Pickled()}, tmp_path / "evil.pth")
    with pytest.raises(UnreadableFile, match="tensors in"):
        import_authors(model, tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("no pickle")
    with pytest.raises(UnreadableFile, match="tensors in"):
        import_authors(model, tmp_path / "text.pth")


def test_what_the_authors_layout_cannot_hold(model, head, tmp_path):
    with pytest.raises(BadInput, match="without alpha"):
        export_authors(
            replace(head, lora=CrossLora(head.lora.layers, alpha=1.0)),
            model,
            tmp_path / "a.pth",
            tmp_path / "b.safetensors",
        )
