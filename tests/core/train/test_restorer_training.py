"""Training a restorer: it learns, goes on after a kill, and shares its work between processes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from latent_critic.core.cli.main import build_parser
from latent_critic.core.cli.train_restorer import request_of
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.nets.restorer import RestorerShape
from latent_critic.core.restoration.weights import load_restorer
from latent_critic.core.train.descent import rate_at
from latent_critic.core.train.ldm.pictures import load_collection
from latent_critic.core.train.restorer import train_restorer
from latent_critic.core.train.restorer_data import collection, held_back_pairs, pairs
from latent_critic.core.train.restorer_request import RestorerRequest
from safetensors.torch import load_file

SMALL = RestorerShape(8, (1, 2), 1, (), 32, 0.1, 0, False, 1, "clean", 0.3)


@pytest.fixture
def request_for(pictures, tmp_path):
    """`request_for(name, **settings)` → a request of a tiny run in folder `name`."""

    def make(name="run", **settings):
        small = {
            "shape": SMALL, "steps": 6, "batch": 4, "rate": 2e-3, "rise": 2, "inference": 4, "eta": 0.0,
            "validate_every": 3, "validate_on": 11, "average": 0.5,
        }  # fmt: skip
        out = tmp_path / f"{name}.safetensors"
        return RestorerRequest(pictures=pictures, out=out, run=tmp_path / name, **{**small, **settings})

    return make


def _state(request):
    return load_file(request.run / "state.safetensors")


def test_it_brings_noisy_pictures_nearer(request_for):
    """One kind, a minute of training: restored held-back pictures are nearer to the originals."""
    request = request_for(
        kinds=("white_noise",), steps=120, batch=8, rate=5e-3, average=0.95, pure=0.5, highest_noise=0.4, own=1.0,
        validate_every=1000, shape=replace(SMALL, dropout=0.0),
    )  # fmt: skip
    found = train_restorer(request).validation
    assert found["psnr_restored"] > found["psnr_damaged"] + 1.0
    assert found["nearer"] > 0.7


@pytest.mark.parametrize(
    "shape", [SMALL, RestorerShape(8, (1, 2), 1, (16,), 32, 0.1, 4)], ids=["clean estimate", "published eps"]
)
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(request_for, shape):
    whole = request_for("whole", shape=shape, own=0.5)
    train_restorer(whole)

    class Stop(Exception):
        pass

    def stop(what, done, total, figures):
        if done == 4:
            raise Stop

    parted = request_for("parted", shape=shape, own=0.5, save_minutes=0.0)
    with pytest.raises(Stop):
        train_restorer(parted, stop)
    result = train_restorer(parted)
    assert result.step == 6
    one, other = _state(whole), _state(parted)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert whole.out.read_bytes() == parted.out.read_bytes()
    rows = (parted.run / "log.jsonl").read_text().splitlines()
    assert [row.split('"step": ')[1].split(",")[0] for row in rows] == ["3", "6"]


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_run_goes_on(request_for, tmp_path, pictures):
    """Killed with -9 at any moment, a run ends with the weights of one that was not."""
    script = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from latent_critic.core.nets.restorer import RestorerShape\n"
        "from latent_critic.core.train.restorer import train_restorer\n"
        "from latent_critic.core.train.restorer_request import RestorerRequest\n"
        "folder = Path(sys.argv[2])\n"
        f"shape = RestorerShape.from_dict({SMALL.to_dict()!r})\n"
        "train_restorer(RestorerRequest(Path(sys.argv[1]), folder / 'killed.safetensors', folder / 'killed', shape,\n"
        "    steps=24, batch=4, rate=2e-3, rise=2, inference=4, eta=0.0, validate_every=12, validate_on=11,\n"
        "    average=0.5, save_minutes=0.0))\n"
    )
    command = [sys.executable, "-c", script, str(pictures), str(tmp_path)]
    request = request_for("killed", steps=24, validate_every=12, save_minutes=0.0)
    child = subprocess.Popen(command, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not (request.run / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() != 0
    train_restorer(request)
    unbroken = request_for("unbroken", steps=24, validate_every=12)
    train_restorer(unbroken)
    one, other = _state(request), _state(unbroken)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not list(tmp_path.rglob("*.tmp*"))


def test_another_request_or_other_pictures_do_not_go_on(request_for, tmp_path):
    request = request_for(steps=2)
    train_restorer(request)
    with pytest.raises(BadInput, match="same request"):
        train_restorer(replace(request, rate=1e-3))
    (request.run / "state.safetensors").write_bytes(b"torn")
    with pytest.raises(UnreadableFile):
        train_restorer(request)


def test_every_third_picture_in_the_manifests_order(request_for, pictures, tmp_path):
    """What the shipped restorer's card says: a third of those that are not held back, the held-back ones all."""
    names = sorted(path.name for path in pictures.iterdir())
    order = [*names[5:], *names[:5]]
    rows = [{"file": str(pictures / name), "held_back": place % 4 == 1} for place, name in enumerate(order)]
    (tmp_path / "listed").mkdir()
    (tmp_path / "listed/manifest.json").write_text(json.dumps({"pictures": rows}))
    request = replace(request_for(every=3, steps=1, validate_on=3), pictures=tmp_path / "listed")
    found = collection(request)
    trained = [row["file"] for row in rows if not row["held_back"]]
    assert [picture.name for picture in found.train] == trained[::3]
    assert [picture.name for picture in found.held_back] == [row["file"] for row in rows if row["held_back"]]
    train_restorer(request)
    facts = load_restorer(request.out)[1]
    assert (facts.training["pictures"], facts.training["every"]) == (len(trained[::3]), 3)
    with pytest.raises(BadInput, match="same request"):
        train_restorer(replace(request, every=2))
    parsed = build_parser().parse_args(
        ["train", "restorer", "--pictures", "p", "--out", "r.safetensors", "--run", "r", "--every", "3"]
    )
    assert request_of(parsed).every == 3


def test_the_file_holds_the_averaged_weights(request_for):
    request = request_for()
    result = train_restorer(request)
    net, facts = load_restorer(request.out)
    state = _state(request)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[f"average/net/{name}"].half().float())
    assert (facts.steps, facts.eta, facts.training["step"]) == (4, 0.0, 6)
    assert facts.validation["psnr_restored"] == result.validation["psnr_restored"]
    assert request.out.stat().st_size < 2.2 * result.parameters + 8000


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains(request_for, precision):
    full = train_restorer(request_for("full"))
    half = train_restorer(request_for(precision, precision=precision))
    assert half.validation["psnr_restored"] == pytest.approx(full.validation["psnr_restored"], abs=1.0)


def test_pairs_are_drawn_by_seed_and_step(request_for, pictures):
    request = request_for()
    found = load_collection(pictures, 48)
    damaged, clean = pairs(found.train, request, 3, range(4))
    assert damaged.shape == clean.shape == (4, 3, 32, 32)
    assert 0.0 <= float(damaged.min()) <= float(damaged.max()) <= 1.0
    again = pairs(found.train, request, 3, [2])
    assert torch.equal(again[0][0], damaged[2])
    assert not torch.equal(pairs(found.train, request, 4, range(4))[1], clean)
    untouched, same = pairs(found.train, replace(request, untouched=0.999), 3, range(4))
    assert torch.equal(untouched, same)
    held, original = held_back_pairs(found.held_back, request)
    assert len(held) == request.validate_on
    assert float((held - original).abs().flatten(1).mean(1).min()) > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"kinds": ("webp",)}, {"kinds": ()}, {"steps": 0}, {"average": 1.0}, {"loss": "l3"}, {"precision": "int8"},
        {"inference": 2}, {"highest_noise": 0.0}, {"own": 1.5}, {"pure": 1.0},
    ],
)  # fmt: skip
def test_impossible_requests_are_refused(request_for, wrong):
    with pytest.raises(BadInput):
        request_for(**wrong)


def test_the_published_rate_is_constant(request_for):
    request = request_for(falls=False, steps=100)
    rates = [rate_at(request, step, request.rise, request.falls) for step in (50, 99)]
    assert rates == [request.rate, request.rate]
    falling = replace(request, falls=True)
    assert rate_at(falling, 99, falling.rise, falling.falls) == pytest.approx(0.05 * request.rate, rel=0.05)


@pytest.mark.slow
def test_two_launched_processes_train_one_restorer(alone_and_launched, pictures):
    """The weights after three steps are one process's: each took half of every step's pairs."""
    options = "--steps 3 --batch 4 --rate 1e-3 --validate-on 11 --inference 4 --side 32 --inner 8 --multipliers 1 2"
    (_, alone, _), (told, launched, _) = alone_and_launched(
        "restorer", *options.split(), on=("--pictures", str(pictures))
    )
    assert told.count("step 3") == 1
    names = [name for name in alone if not name.startswith("adam/")]
    assert names
    for name in names:
        torch.testing.assert_close(launched[name], alone[name], rtol=1e-3, atol=1e-3)
