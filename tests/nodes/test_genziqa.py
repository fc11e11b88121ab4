"""GenzIQA Scorer and Prompt Alignment on tiny real models, from loader to score."""

import pytest
import torch

pytestmark = pytest.mark.host
SIDE = 64


@pytest.fixture
def heads(pack, tiny, comfyui_base):
    """`heads(family, name, **meta)` writes an untrained head with facts into models/quality_heads; gives its name."""
    from dataclasses import replace

    adaptable = pack("core.hosts.comfyui.adaptable").AdaptableComfyBackbone
    maker, files = pack("core.methods.genziqa_head"), pack("core.methods.genziqa_file")
    settings = pack("core.methods.genziqa_settings").GenzSettings
    folder = comfyui_base / "models/quality_heads"

    def make(family="sd15", name="tiny", seed=1, **changes):
        backbone = adaptable(tiny.model(family, seed), tiny.clip(family, seed), tiny.vae(seed))
        head = maker.untrained(backbone, settings(timesteps=(33, 69), side=SIDE), context=4, rank=2)
        for _, up in head.lora.layers.values():
            up.normal_(std=0.2, generator=torch.Generator().manual_seed(2))
        facts = {"calibrated_on": "photographs", "scale": (0.0, 100.0), "training_set": "a set", "pictures": 9}
        validation = {"srcc": 0.5, "srcc_low": 0.25, "srcc_high": 0.75, "n": 40, "srcc_two_levels_with_published": 0.9}
        head = replace(head, meta=replace(head.meta, **{**facts, "validation": validation, **changes}))
        head = head.with_settings(offset=50.0, gain=0.5)
        files.save_genziqa(folder / f"{name}.safetensors", head)
        return f"{name}.safetensors"

    yield make
    for path in folder.glob("*"):
        path.unlink()


def graph(head, family="sd15", seed=1, nan=-1, node="LatentCriticScoreImages", scorer=None, widgets=None):
    inputs = {
        "model": ["1", 0],
        "clip": ["1", 1],
        "vae": ["1", 2],
        "head": head,
        "levels": "as trained",
        "noise_bias": True,
    }
    return {
        "1": {"class_type": "TestTinyCheckpoint", "inputs": {"family": family, "seed": seed}},
        "2": {"class_type": "LatentCriticGenzIQA", "inputs": {**inputs, **(scorer or {})}},
        "3": {
            "class_type": "TestNoisePictures",
            "inputs": {"count": 4, "width": 64, "height": 64, "seed": 3, "nan": nan},
        },
        "4": {"class_type": node, "inputs": {"images": ["3", 0], "scorer": ["2", 0], **(widgets or {})}},
        "5": {"class_type": "TestKeep", "inputs": {"name": "report", "value": ["2", 1]}},
    }  # fmt: skip


@pytest.mark.parametrize("family", ["sd15", "sd20", "sd20_v", "sdxl"])
def test_the_loaded_model_judges_by_its_head(run_workflow, heads, family):
    run = run_workflow(graph(heads(family), family, nan=2))
    assert run.success, run.error
    shown = run.outputs["4"]
    assert shown["spec"][0]["name"] == "genziqa"
    assert shown["spec"][0]["calibrated_on"] == "photographs"
    values = {row["index"]: row["score"] for row in shown["scores"]}
    assert values[2] is None
    assert len({values[0], values[1], values[3]}) == 3
    (report,) = run.kept["report"]
    assert "a set, 9 pictures" in report
    assert "SRCC 0.500 [0.250, 0.750], 40 pictures" in report
    assert "0.900" in report
    assert "The same as trained, for this head: levels fast (2)" in report
    assert "fitted at: as trained, fast (2)\n" in report
    assert "LoRA:" in report


def test_fewer_levels_and_no_bias(run_workflow, heads):
    name = heads()
    run = run_workflow(graph(name, scorer={"levels": "fastest (1)", "noise_bias": False}))
    assert run.success, run.error
    spec = run.outputs["4"]["spec"][0]
    assert "noise levels" in run.kept["report"][0]
    assert spec["settings"]["timesteps"] == [69]
    assert spec["calibrated_on"] is None


def test_another_checkpoint_is_refused_unless_allowed(run_workflow, heads):
    name = heads()
    run = run_workflow(graph(name, seed=2))
    assert "MismatchedBackbone" in run.error
    assert "fingerprint" in run.error
    run = run_workflow(graph(name, seed=2, scorer={"allow_another_model": True}))
    assert run.success, run.error
    assert run.outputs["4"]["spec"][0]["calibrated_on"] is None


@pytest.fixture
def shipped(comfyui):
    """The choice where nobody has made a head."""
    return comfyui.NODE_CLASS_MAPPINGS["LatentCriticGenzIQA"].GET_SCHEMA().inputs[3].default


def test_without_a_head_for_the_model_it_says_what_to_do(run_workflow, shipped):
    run = run_workflow(graph(shipped))
    assert not run.success
    assert "latent-critic train genziqa" in run.error


def test_the_embedded_model_has_a_head_at_once(run_workflow, shipped):
    prompt = graph(shipped)
    prompt["1"] = {"class_type": "LatentCriticLoadEmbedded", "inputs": {}}
    run = run_workflow(prompt)
    assert run.success, run.error
    assert run.outputs["4"]["spec"][0]["calibrated_on"] is None
    assert all(score["score"] is not None for score in run.outputs["4"]["scores"])


def test_a_damaged_head_is_one_clear_error(run_workflow, heads, comfyui_base):
    name = heads()
    path = comfyui_base / "models/quality_heads" / name
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(path, framework="pt") as handle:
        told = handle.metadata()
    save_file({**load_file(path), "context.l": torch.zeros(1)}, path, metadata=told)
    run = run_workflow(graph(name))
    assert not run.success
    assert "context vectors" in run.error


def test_the_authors_files_are_taken(run_workflow, pack, tiny, heads, comfyui_base):
    adaptable = pack("core.hosts.comfyui.adaptable").AdaptableComfyBackbone
    backbone = adaptable(tiny.model("sd20", 1), tiny.clip("sd20", 1), tiny.vae(1))
    files, authors = pack("core.methods.genziqa_file"), pack("core.methods.genziqa_authors")
    folder = comfyui_base / "models/quality_heads"
    head = files.load_genziqa(folder / heads("sd20"))
    authors.export_authors(head.with_settings(gain=1.0), backbone, folder / "context.pth", folder / "lora.safetensors")
    run = run_workflow(
        graph("context.pth", "sd20", scorer={"authors_lora": "lora.safetensors", "levels": "fastest (1)"})
    )
    assert run.success, run.error
    settings = run.outputs["4"]["spec"][0]["settings"]
    assert (settings["value_range"], settings["square"], settings["side"]) == ("clip", True, 512)
    run = run_workflow(graph("tiny.safetensors", "sd20", scorer={"authors_lora": "lora.safetensors"}))
    assert "authors_lora" in run.error
    run = run_workflow(graph("context.pth", "sd15"))
    assert "MismatchedBackbone" in run.error


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".safetensors"])
def test_any_file_but_our_own_heads_may_be_the_authors_lora(pack, heads, comfyui, comfyui_base, suffix):
    ours, path = heads(), comfyui_base / f"models/quality_heads/pytorch_lora_weights{suffix}"
    path.write_bytes(b"x")
    choices = pack("nodes._prompt_heads").lora_choices()
    assert path.name in choices
    assert ours not in choices
    node = comfyui.NODE_CLASS_MAPPINGS["LatentCriticGenzIQA"]
    before = node.fingerprint_inputs(head=ours, authors_lora=path.name)
    path.write_bytes(b"yyyy")
    assert node.fingerprint_inputs(head=ours, authors_lora=path.name) != before


def test_the_users_model_samples_as_before(run_workflow, heads):
    """A sampling, a score by a head with LoRA, the same sampling again: bit for bit the same latents."""
    prompt = graph(heads())
    model = {"model": ["1", 0], "positive": ["7", 0], "negative": ["7", 0], "latent_image": ["6", 0]}
    widgets = {"steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    prompt |= {
        "6": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a photo"}},
        "8": {"class_type": "KSampler", "inputs": {**model, **widgets, "seed": 5}},
        "9": {"class_type": "TestKeep", "inputs": {"name": "latent", "value": ["8", 0]}},
    }
    alone = {key: value for key, value in prompt.items() if key not in "2345"}
    before = run_workflow(alone)
    assert before.success, before.error
    latent = before.kept["latent"][0]["samples"].clone()
    assert run_workflow(prompt).success
    prompt["8"]["inputs"]["seed"] = 6
    assert run_workflow(prompt).success
    prompt["8"]["inputs"]["seed"] = 5
    after = run_workflow(prompt)
    assert after.success, after.error
    assert torch.equal(after.kept["latent"][0]["samples"], latent)


def alignment(family="sd15", prompt="a red fox", **linked):
    inputs = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "prompt": prompt, "size": SIDE, **linked}
    found = {
        "1": {"class_type": "TestTinyCheckpoint", "inputs": {"family": family, "seed": 1}},
        "2": {"class_type": "LatentCriticPromptAlignment", "inputs": inputs},
        "3": {
            "class_type": "TestNoisePictures",
            "inputs": {"count": 2, "width": 96, "height": 48, "seed": 3, "nan": -1},
        },
    }
    for place, name in enumerate(("scorer", "scores", "maps", "labels", "report")):
        found[f"keep {name}"] = {"class_type": "TestKeep", "inputs": {"name": name, "value": ["2", place]}}
    return found


@pytest.mark.parametrize("family", ["sd15", "sd20", "sdxl"])
def test_words_get_numbers_and_maps_at_any_aspect(run_workflow, family):
    run = run_workflow(alignment(family, images=["3", 0]))
    assert run.success, run.error
    assert [tuple(one.shape) for one in run.kept["maps"]] == [(1, 48, 96, 3)] * 6
    assert [label.split()[:2] for label in run.kept["labels"]] == [
        [str(image), word] for image in (0, 1) for word in ("a", "red", "fox")
    ]
    (scores,) = run.kept["scores"]
    assert all(score.ok for score in scores)
    assert run.kept["report"][0].count("fox") == 2
    values = [row["value"] for row in scores[0].attributes["words"]]
    assert any(abs(value) > 1e-4 for value in values)


@pytest.mark.parametrize("prompt", ["лиса в снегу", "雪の中の狐", "word " * 90, "(heavy:1.4) fox", "fox."])
def test_other_scripts_and_long_prompts(run_workflow, prompt):
    run = run_workflow(alignment(prompt=prompt, images=["3", 0]))
    assert run.success, run.error
    (scores,) = run.kept["scores"]
    assert all(score.ok for score in scores)
    assert len(scores[0].attributes["words"]) == len(prompt.split())


def test_a_spread_of_ones_own_is_what_blends_divide_by(run_workflow):
    run = run_workflow(alignment(images=["3", 0], spread=0.03))
    assert run.success, run.error
    (scores,), (report,) = run.kept["scores"], run.kept["report"]
    assert scores.spec.spread == 0.03
    assert "Spread for blends: 0.03, given by the user." in report
    a, b = scores.values()
    assert f"Standard deviation of these images' numbers: {abs(a - b) / 2**0.5:.3g}" in report
    run = run_workflow(alignment(images=["3", 0]))
    assert "Spread for blends: 0.1, a convention, not measured on this model." in run.kept["report"][0]


def test_an_empty_prompt_is_a_reason(run_workflow):
    run = run_workflow(alignment(prompt=" ", images=["3", 0]))
    assert run.success, run.error
    assert "no words" in run.kept["report"][0]
    assert "maps" not in run.kept


def test_without_images_only_the_scorer_comes_out(run_workflow):
    run = run_workflow(alignment())
    assert "scorer" in run.kept
    assert "scores" not in run.kept


def test_quality_and_alignment_blended_rank_a_batch(run_workflow, heads):
    prompt = graph(heads(), node="LatentCriticPickBest", widgets={"keep": 1, "scorer": ["7", 0], "prompts": ["8", 0]})
    inputs = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "prompt": "", "size": SIDE}
    blend = {
        "scorer_a": ["2", 0],
        "scorer_b": ["6", 0],
        "weight_a": 1.0,
        "weight_b": 0.5,
        "weight_c": 1.0,
        "weight_d": 1.0,
    }
    prompt |= {
        "6": {"class_type": "LatentCriticPromptAlignment", "inputs": inputs},
        "7": {"class_type": "LatentCriticBlendScorers", "inputs": blend},
        "8": {"class_type": "PrimitiveString", "inputs": {"value": "a red fox"}},
    }
    run = run_workflow(prompt)
    assert run.success, run.error
    spec = run.outputs["4"]["spec"][0]
    assert [part["spec"]["name"] for part in spec["settings"]["parts"]] == ["genziqa", "prompt_alignment"]
    assert [part["weight"] for part in spec["settings"]["parts"]] == pytest.approx([2 / 3, 1 / 3])
    assert all(row["score"] is not None for row in run.outputs["4"]["scores"])
