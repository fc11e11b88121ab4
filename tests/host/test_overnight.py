"""The overnight workflow on real servers: two at one folder, one of them killed in its work and started again."""

import json
import time
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.host, pytest.mark.slow]
WORKFLOW = Path(__file__).resolve().parents[2] / "workflows/api/overnight_session.json"
BEST = 2


def prompt(seed, checkpoint, session):
    """The shipped workflow, small and quick."""
    nodes = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    small = {"ckpt_name": checkpoint, "width": 64, "height": 64, "steps": 1, "top_k": BEST, "session": session}
    small |= {"filename_pattern": f"{session} upscaled/%score%"}
    for node in nodes.values():
        node["inputs"] |= {name: small[name] for name in small.keys() & node["inputs"].keys()}
    nodes["5"]["inputs"]["seed"] = seed
    return nodes


def queue(server, *prompts):
    """Queue several at once; their numbers."""
    return [server.post("prompt", {"prompt": one})["prompt_id"] for one in prompts]


def wait(server, numbers, seconds=240):
    """Until all are done; their entries in /history."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        history = server.get("history")
        if all(number in history for number in numbers):
            return [history[number] for number in numbers]
        time.sleep(0.3)
    raise TimeoutError(server.tail())


def scores(folder):
    """Side → scores of the whole files in it."""
    found = {}
    for side in ("best", "rest"):
        found[side] = []
        for path in (folder / side).glob("*.png"):
            with Image.open(path) as picture:
                picture.load()
                found[side].append(json.loads(picture.text["latent_critic"])["score"])
    return found


def test_two_servers_share_a_night_and_one_is_killed_and_started_again(start_server, sd15_checkpoint, tmp_path):
    output = tmp_path / "output"
    options = ("--output-directory", str(output))
    one, other = (start_server(tmp_path / name, *options) for name in ("one", "other"))
    job = [prompt(seed, sd15_checkpoint, "night") for seed in range(14)]
    killed, theirs = queue(one, *job[:4]), queue(other, *job[4:8])
    wait(one, killed[:1])
    one.process.kill()  # SIGKILL, in the work of the next prompt
    one.process.wait()
    assert all(entry["status"]["status_str"] == "success" for entry in wait(other, theirs))
    one = start_server(tmp_path / "one", *options)
    again = queue(one, *job[:4], *job[8:11])  # those that were done before count once
    last = queue(other, *job[11:])
    entries = wait(one, again) + wait(other, last)
    assert all(entry["status"]["status_str"] == "success" for entry in entries)
    found = scores(output / "night")
    ranked = sorted(found["best"] + found["rest"], reverse=True)
    assert len(ranked) == 14
    assert sorted(found["best"], reverse=True) == ranked[:BEST]
    upscaled = list((output / "night upscaled").glob("*.png"))
    assert BEST <= len(upscaled) <= 14
    assert not [path for path in output.rglob("*") if path.name.endswith(".tmp.png") or path.stat().st_size == 0]
    log = (output / "night upscaled/latent_critic.csv").read_text(encoding="utf-8").splitlines()
    assert len(log) == 1 + len(upscaled)
    # The reset button gives the session its next name.
    (fresh,) = wait(one, queue(one, prompt(99, sd15_checkpoint, "night 2")))
    (shown,) = (value for value in fresh["outputs"].values() if "session" in value)
    assert shown["session"][0]["seen"] == 1
    assert scores(output / "night") == found
