"""Reroll Until Good and Best Of N on a real server: queued at once, cached in /history, interrupted at any moment."""

import json
import random
import sqlite3
import time
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.host, pytest.mark.slow]
WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows/api"


def small(story, checkpoint, **widgets):
    """A shipped workflow, small and quick."""
    nodes = json.loads((WORKFLOWS / f"{story}.json").read_text(encoding="utf-8"))
    values = {"ckpt_name": checkpoint, "width": 64, "height": 64, "steps": 1, **widgets}
    for node in nodes.values():
        node["inputs"] |= {name: values[name] for name in values.keys() & node["inputs"].keys()}
    return nodes


def entry(server, number, seconds=240):
    """Its entry in /history, once it is done."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        history = server.get(f"history/{number}")
        if number in history:
            return history[number]
        time.sleep(0.1)
    raise TimeoutError(server.tail())


def queue(server, prompt, **rest):
    return server.post("prompt", {"prompt": prompt, **rest})["prompt_id"]


def attempts(found):
    """Seeds and scores of a reroll, from /history."""
    (told,) = (out["reroll"][0] for out in found["outputs"].values() if "reroll" in out)
    return [(row["seed"], row["score"]) for row in told["log"]["attempts"]]


def test_two_prompts_queued_at_once_do_not_mix(comfyui_server, sd15_checkpoint):
    story = "reroll_until_good"
    prompts = [small(story, sd15_checkpoint, seed=seed, threshold=100.0, max_attempts=3) for seed in (500, 900)]
    numbers = [queue(comfyui_server, prompt) for prompt in prompts]
    found = [attempts(entry(comfyui_server, number)) for number in numbers]
    assert [[seed for seed, _ in rows] for rows in found] == [[500, 501, 502], [900, 901, 902]]
    assert len({score for rows in found for _, score in rows}) == 6


def test_a_cached_run_tells_its_scores_again(comfyui_server, sd15_checkpoint):
    prompt = small("reroll_until_good", sd15_checkpoint, seed=40, threshold=100.0, max_attempts=2)
    first = attempts(entry(comfyui_server, queue(comfyui_server, prompt, client_id="a script")))
    prompt["10"]["inputs"]["filename_prefix"] = "again"  # so that one node runs
    again = entry(comfyui_server, queue(comfyui_server, prompt, client_id="a script"))
    assert attempts(again) == first
    (cached,) = (data["nodes"] for kind, data in again["status"]["messages"] if kind == "execution_cached")
    assert "5" in cached


def test_interrupts_at_any_moment_leave_history_and_files_whole(comfyui_server, sd15_checkpoint):
    chance, ended = random.Random(0), []
    # One whole run first: every interrupt may come before anything is written.
    first = small("overnight_session", sd15_checkpoint, seed=1999, session="interrupted")
    assert entry(comfyui_server, queue(comfyui_server, first))["status"]["status_str"] == "success"
    for number in range(24):
        story = ("reroll_until_good", "overnight_session", "best_of_16")[number % 3]
        widgets = {"seed": 2000 + 10 * number, "steps": 2, "session": "interrupted", "threshold": 100.0, "n": 3}
        prompt = queue(comfyui_server, small(story, sd15_checkpoint, **widgets))
        time.sleep(chance.uniform(0, 0.6))
        comfyui_server.read("interrupt", {})
        ended.append(entry(comfyui_server, prompt)["status"]["status_str"])
    assert "error" in ended  # ComfyUI's word for an interrupted prompt; else nothing was shown
    db = sqlite3.connect(comfyui_server.base / "user/latent_critic/history.sqlite")
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("SELECT count(*) FROM scores").fetchone()[0] >= 1
    db.close()
    for path in (comfyui_server.base / "output").rglob("*"):
        assert ".tmp" not in path.name
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
    # And it goes on afterwards.
    last = small("overnight_session", sd15_checkpoint, seed=9999, session="interrupted")
    assert entry(comfyui_server, queue(comfyui_server, last))["status"]["status_str"] == "success"
