"""Scoring in ComfyUI writes the history, shows the percentile, and never fails because of it."""

import json
import logging

import pytest
import torch

pytestmark = pytest.mark.host
NODE = "LatentCriticScoreImages"


@pytest.fixture
def file(comfyui_base, monkeypatch):
    """The history where ComfyUI's user folder has it, switched on, gone again after the test."""
    monkeypatch.delenv("LATENT_CRITIC_HISTORY")
    path = comfyui_base / "user" / "latent_critic" / "history.sqlite"
    path.unlink(missing_ok=True)
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def history(pack, file):
    return pack("core.history.store").History(file)


def test_every_scoring_is_recorded_once(run_node, pictures, scorer, history):
    levels = [0.2, 0.8, None]
    for _ in range(2):  # a new executor scores again; the history holds each picture once
        run = run_node(NODE, images=[pictures(levels)], scorer=[scorer()], prompts=["a fox"], seeds=[2**64 - 1])
        assert run.success, run.error
    rows = history.query()
    assert [row["score"] for row in rows] == [None, pytest.approx(80, abs=0.01), pytest.approx(20, abs=0.01)]
    assert "NaN" in rows[0]["reason"]
    assert {row["seed"] for row in rows} == {2**64 - 1}
    assert {row["scorer"] for row in rows} == {"brightness"}
    assert len({row["image"] for row in rows}) == 3
    assert "a fox" not in json.dumps(rows)


@pytest.mark.parametrize("keep", [True, False])
def test_what_was_sampled_is_known_by_its_conditioning(run_workflow, scorers, history, keep):
    """Reroll Until Good and Best Of N see CONDITIONING only: its hash, which no text has."""

    def prompts_of(text, node, **widgets):
        prompt = {
            "1": {"class_type": "TestTinyCheckpoint", "inputs": {"family": "sd15", "seed": 0}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["1", 1]}},
            "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad", "clip": ["1", 1]}},
            "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
            "5": {"class_type": "TestScorerSource", "inputs": {"key": "it"}},
        }
        links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
        links |= {"vae": ["1", 2], "scorer": ["5", 0]}
        plan = {"steps": 1, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
        seeds = {"seed": 7, "seed_mode": "increment", "seed_list": ""}
        prompt["6"] = {"class_type": node, "inputs": {**links, **plan, **seeds, **widgets}}
        before = len(history.query()) if history.path.exists() else 0
        run = run_workflow(prompt)
        assert run.success, run.error
        rows = history.query()
        return {row["prompt"] for row in rows[: len(rows) - before]}

    budget = {"threshold": -1.0, "max_attempts": 2, "stop_at_first_good": True, "max_calls": 0, "max_seconds": 0.0}
    race = {"n": 2, "looks": "", "shares": "0.5", "early_abort": "off", "abort_quantile": 0.25, "finish_at_least": 1}
    rerolled = prompts_of("a fox", "LatentCriticReroll", **budget, keep_candidates=keep)
    (cat,) = prompts_of("a cat", "LatentCriticReroll", **budget, keep_candidates=keep)
    (fox,) = rerolled
    assert fox[:2] == cat[:2] == "c:"
    assert fox != cat
    raced = prompts_of("a cat", "LatentCriticBestOfN", **race, rows_at_once=1, seed=90)
    assert raced == {cat}


def test_given_scores_are_not_recorded_again(run_node, pictures, scorer, history):
    images = pictures([0.2, 0.8])
    batch = scorer().score(list(images.movedim(-1, 1)))
    assert run_node("LatentCriticPickBest", {"keep": 1}, images=[images], scores=[batch]).success
    assert not history.path.exists()


def test_the_percentile_is_shown_from_twenty_earlier_scores_on(run_node, pictures, scorer, history):
    def best(levels):
        run = run_node("LatentCriticPickBest", {"keep": 1}, images=[pictures(levels)], scorer=[scorer()])
        assert run.success, run.error
        return run.ui

    best([0.02 * n for n in range(19)])
    few = best([0.9])
    assert few["scores"][0]["history"] is None
    assert "history" not in few["text"][0]
    found = best([0.15, 0.95])
    assert [row["history"] for row in found["scores"]] == [100, pytest.approx(100 * 8 / 20)]
    assert "100 %" in found["text"][0]
    assert "among your 20 earlier scores" in found["text"][0]
    # The same picture once more stands where it stood, among one more: it never counts against itself.
    assert best([0.95])["scores"][0]["history"] == 100
    other = run_node(NODE, images=[pictures([0.5])], scorer=[scorer(backbone="another model")])
    assert other.ui["scores"][0]["history"] is None


@pytest.mark.parametrize("word", ["off", "0", "No"])
def test_the_switch(run_node, pictures, scorer, file, monkeypatch, word):
    monkeypatch.setenv("LATENT_CRITIC_HISTORY", word)
    assert run_node(NODE, images=[pictures([0.2])], scorer=[scorer()]).success
    assert not file.exists()


def test_the_variable_names_another_file(run_node, pictures, scorer, file, monkeypatch, tmp_path):
    monkeypatch.setenv("LATENT_CRITIC_HISTORY", str(tmp_path / "mine" / "h.sqlite"))
    assert run_node(NODE, images=[pictures([0.2])], scorer=[scorer()]).success
    assert not file.exists()
    assert (tmp_path / "mine" / "h.sqlite").exists()


def test_a_history_that_cannot_be_written_is_one_warning(
    run_node, pictures, scorer, file, monkeypatch, tmp_path, caplog
):
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.setenv("LATENT_CRITIC_HISTORY", str(tmp_path / "a file" / "h.sqlite"))
    with caplog.at_level(logging.WARNING):
        for level in (0.2, 0.3, 0.4):
            run = run_node(NODE, images=[pictures([level])], scorer=[scorer()])
            assert run.success, run.error
            assert run.kept["scored_count"] == [1]
    assert len([record for record in caplog.records if "history of scores is not written" in record.message]) == 1


def test_a_damaged_history_is_set_aside_and_the_run_goes_on(run_node, pictures, scorer, history, caplog):
    history.path.parent.mkdir(exist_ok=True)
    history.path.write_bytes(b"no database " * 1000)
    run = run_node(NODE, images=[pictures([0.2])], scorer=[scorer()])
    assert run.success, run.error
    assert len(history.query()) == 1
    (aside,) = history.path.parent.glob("history.damaged-*.sqlite")
    assert aside.read_bytes() == b"no database " * 1000
    assert str(aside) in caplog.text
    aside.unlink()


def test_the_hash_tells_pictures_and_shapes_apart(pack):
    pixel_hash = pack("nodes._history").pixel_hash
    image = torch.rand(1, 8, 12, 3)
    assert pixel_hash(image) == pixel_hash(image.clone())
    assert pixel_hash(image) == pixel_hash(torch.cat([image, image])[1:])
    assert pixel_hash(image) != pixel_hash(image.reshape(1, 12, 8, 3))
    changed = image.clone()
    changed[0, 0, 0, 0] += 1e-3
    assert pixel_hash(image) != pixel_hash(changed)
    assert pixel_hash(image.to(torch.bfloat16))
