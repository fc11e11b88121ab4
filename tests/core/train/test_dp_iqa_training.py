"""Training of DP-IQA heads: the same forward as the scorer's, cached features, runs that resume, memory for time."""

import importlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.train.genziqa_losses import LossWeights
from safetensors.torch import load_file

FEW = ("a photo of a human with lens artifacts", "a photo of a plant with blur artifacts", "a photo of night")
SIZES = {"width": 8, "kernel": 1, "squeeze": 4, "thin": (4,), "cells": 4, "hidden": 8}
NONE = {"text_hidden": 0, "image_width": 0}
BOTH = {"text_hidden": 4, "image_width": 4, "image_blocks": 1}


@pytest.fixture(scope="module")
def dp(diffusers):
    names = ("dp_iqa", "dp_iqa_request", "dp_iqa_data", "dp_iqa_forward", "dp_iqa_maps")
    found = {name: importlib.import_module(f"latent_critic.core.train.{name}") for name in names}
    for name in ("dp_iqa_head", "dp_iqa_settings", "dp_iqa_file", "dp_iqa_text"):
        found[f"{name}_of"] = importlib.import_module(f"latent_critic.core.methods.{name}")
    found["scorer"] = importlib.import_module("latent_critic.core.methods.dp_iqa")
    return SimpleNamespace(**found)


@pytest.fixture(autouse=True)
def few_sentences(monkeypatch):
    monkeypatch.setattr("latent_critic.core.methods.dp_iqa_text.sentences", lambda: FEW)


@pytest.fixture(scope="module")
def backbone(tiny_folder):
    """A random tiny model in a folder, as a backbone with gradients."""
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.hosts.diffusers.loading import load_pipeline

    backbone = DiffusersBackbone(load_pipeline(str(tiny_folder)))
    backbone.folder = tiny_folder
    return backbone


@pytest.fixture
def request_for(dp, rated, tmp_path):
    def make(name="run", adapters=NONE, **changes):
        given = {
            "data": rated, "out": tmp_path / f"{name}.safetensors", "run": tmp_path / name, "content": False,
            "settings": dp.dp_iqa_settings_of.DpSettings(side=64), "sizes": {**SIZES, **adapters}, "batch": 4,
            "steps": 4, "validate_every": 2, "validate_on": 8, "share": 0.3, "average": 0.5, "rows": 2,
        }  # fmt: skip
        return dp.dp_iqa_request.DpRequest(**{**given, **changes})

    return make


@pytest.mark.parametrize("adapters", [NONE, BOTH], ids=["cached", "adapters"])
def test_a_head_is_written_and_scores_as_it_was_measured(dp, backbone, request_for, adapters):
    """What training validates is the scorer's own score of the file it wrote."""
    from latent_critic.core.benchmark.agreement import agreement
    from latent_critic.core.images import load_image

    request = request_for(adapters=adapters)
    result = dp.dp_iqa.train_dp_iqa(request, backbone)
    assert result.step == 4
    head = dp.dp_iqa_file_of.load_dp_iqa(request.out)
    assert head.meta.training_set == "contrasts"
    assert head.meta.calibrated_on == "your ratings"
    scorer = dp.scorer.DpIqa(backbone, head)
    held = dp.dp_iqa_data.split(request).held[:8]
    scores = scorer.score([load_image(image.path) for image in held]).values()
    found = agreement(scores, [image.mos for image in held])
    # Cached features are kept in half precision.
    assert found.rmse == pytest.approx(head.meta.validation["rmse"], abs=0.1)
    assert found.plcc == pytest.approx(head.meta.validation["plcc"], abs=0.05)


def test_the_pictures_ratings_are_learned(dp, backbone, request_for):
    """A random model's features tell 28 pictures apart: the loss on them falls to a fraction of their variance."""
    losses = []

    def watch(what, done, total, figures):
        if what == "training":
            losses.append(figures["loss"])

    request = request_for(steps=200, rate=1e-2, batch=14, validate_every=200, flip=False)
    dp.dp_iqa.train_dp_iqa(request, backbone, watch)
    assert sum(losses[-10:]) / 10 < 0.3 * sum(losses[:5]) / 5


@pytest.mark.parametrize("adapters", [NONE, BOTH], ids=["cached", "adapters"])
def test_a_resumed_run_equals_an_uninterrupted_one(dp, backbone, request_for, adapters):
    changes = {"adapters": adapters, "drop": 0.3}
    full = dp.dp_iqa.train_dp_iqa(request_for("whole", **changes), backbone)

    class Stop(Exception):
        pass

    def stop_at_three(what, done, total, figures):
        if what == "training" and done == 3:
            raise Stop

    request = request_for("pieces", **changes)
    with pytest.raises(Stop):
        dp.dp_iqa.train_dp_iqa(request, backbone, stop_at_three)
    pieces = dp.dp_iqa.train_dp_iqa(request, backbone)
    a, b = (load_file(path) for path in (request_for("whole").out, request.out))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert full.validation == pieces.validation
    lines = (request.run / "log.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 2


def test_minutes_stop_a_run_that_then_goes_on(dp, backbone, request_for):
    request = request_for()
    assert dp.dp_iqa.train_dp_iqa(replace(request, minutes=0.0), backbone).head is None
    assert not request.out.exists()
    assert dp.dp_iqa.train_dp_iqa(request, backbone).head is not None


def test_another_request_does_not_go_on(dp, backbone, request_for):
    dp.dp_iqa.train_dp_iqa(request_for(), backbone)
    with pytest.raises(BadInput, match="same request"):
        dp.dp_iqa.train_dp_iqa(request_for(rate=1e-4), backbone)


def test_another_model_does_not_go_on(dp, backbone, request_for):
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.hosts.diffusers.loading import load_pipeline

    request = request_for(adapters=BOTH)
    dp.dp_iqa.train_dp_iqa(replace(request, minutes=0.0), backbone)
    other = load_pipeline(str(backbone.folder))
    with torch.no_grad():
        for parameter in other.unet.parameters():
            parameter.add_(torch.randn_like(parameter))
    with pytest.raises(BadInput, match="same model"):
        dp.dp_iqa.train_dp_iqa(request, DiffusersBackbone(other))
    assert dp.dp_iqa.train_dp_iqa(request, backbone).head is not None


def test_a_start_that_was_written_again_does_not_go_on(dp, backbone, request_for):
    first = request_for("first")
    dp.dp_iqa.train_dp_iqa(first, backbone)
    second = request_for("second", start=first.out)
    dp.dp_iqa.train_dp_iqa(replace(second, minutes=0.0), backbone)
    dp.dp_iqa.train_dp_iqa(replace(first, run=first.run.with_name("again"), seed=1), backbone)
    with pytest.raises(BadInput, match="same start"):
        dp.dp_iqa.train_dp_iqa(second, backbone)


def test_scorers_made_by_name_embed_the_text_once(dp, backbone, moved, monkeypatch, tmp_path):
    """Also where nothing can be kept a score comes."""
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.hosts.diffusers.loading import load_pipeline
    from latent_critic.core.methods.on_model import scorer_on

    _, head = moved
    calls, inner = [], DiffusersBackbone.embed
    monkeypatch.setattr(DiffusersBackbone, "embed", lambda self, told: calls.extend(told) or inner(self, told))
    (tmp_path / "a file").touch()
    scores = []
    for folder, expected in (("kept", 3), ("kept", 3), ("a file", 6)):
        monkeypatch.setenv("LATENT_CRITIC_CACHE", str(tmp_path / folder))
        scorer = scorer_on("dp_iqa", DiffusersBackbone(load_pipeline(str(backbone.folder))), head)
        scores.append(scorer.score([torch.full((3, 64, 64), 0.3)])[0].value)
        assert len(calls) == expected
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-4)


def test_a_start_tells_the_sizes(dp, backbone, request_for, caplog):
    """What is left out is the start's, another decoder is refused, and what begins anew is named."""
    first = request_for("first", adapters=BOTH, steps=1)
    dp.dp_iqa.train_dp_iqa(first, backbone)
    shape = dp.dp_iqa_file_of.load_dp_iqa(first.out).nets.shape
    caplog.clear()
    second = request_for("second", start=first.out, steps=1)
    dp.dp_iqa.train_dp_iqa(replace(second, sizes={}), backbone)
    assert dp.dp_iqa_file_of.load_dp_iqa(second.out).nets.shape == shape
    assert "begin anew" not in caplog.text
    with pytest.raises(BadInput, match=r"width 8, .*got 16"):
        dp.dp_iqa.train_dp_iqa(replace(second, sizes={"width": 16}), backbone)
    third = request_for("third", start=first.out, steps=1)
    dp.dp_iqa.train_dp_iqa(replace(third, sizes={"text_hidden": 6, "image_width": 0}), backbone)
    assert dp.dp_iqa_file_of.load_dp_iqa(third.out).nets.img_adapter is None
    anew, left = (message for message in caplog.messages if "begin from" in message)
    assert "text_adapter.fc.0.weight" in anew
    assert "QFD" not in anew + left
    assert "img_adapter.conv_in.weight" in left


def test_more_processes_than_pictures_in_a_batch(dp, backbone, request_for):
    world = SimpleNamespace(rank=0, size=5, main=True)
    with pytest.raises(BadInput, match="at least 5 pictures"):
        dp.dp_iqa.train_dp_iqa(request_for(), backbone, None, world)


def test_the_loss_scale_is_kept(dp, backbone, request_for):
    import json

    from safetensors import safe_open

    request = request_for(precision="fp16")
    dp.dp_iqa.train_dp_iqa(replace(request, minutes=0.0), backbone)
    run = dp.dp_iqa._Run(request, backbone, None, dp.dp_iqa.Alone())
    run.scaler.load_state_dict({**run.scaler.state_dict(), "scale": 256.0})
    run.state.notes = {**run.notes(), "model": backbone.fingerprint.to_text(), "best": {}}
    run.save()
    with safe_open(run.file, framework="pt") as file:
        assert json.loads(file.metadata()["latent_critic"])["notes"]["scaler"]["scale"] == 256.0
    again = dp.dp_iqa._Run(request, backbone, None, dp.dp_iqa.Alone())
    again.begin()
    assert again.scaler.get_scale() == 256.0


def test_a_seed_is_that_of_the_draw(dp, backbone, moved, monkeypatch, tmp_path):
    from latent_critic.core.methods.on_model import scorer_on

    monkeypatch.setenv("LATENT_CRITIC_CACHE", str(tmp_path))
    _, head = moved
    drawing = replace(head, settings=replace(head.settings, sample=3))
    asked, inner = [], type(backbone).encode
    monkeypatch.setattr(
        type(backbone),
        "encode",
        lambda self, *args, **said: asked.append(said.get("sample")) or inner(self, *args, **said),
    )
    for given, seed in ((head, None), (head, 1), (drawing, None), (drawing, 1)):
        scorer = scorer_on("dp_iqa", backbone, given, seed=seed)
        assert scorer.score([torch.full((3, 64, 64), 0.3)])[0].ok
        assert scorer.spec.settings["sample"] == asked[-1]
    assert asked == [None, None, 3, 1]


def gradients(dp, backbone, request, head, pictures=3, **changes):
    module = dp.dp_iqa_forward.Forward
    sequence = dp.dp_iqa_text_of.text_sequence(backbone, "end")
    head.nets.requires_grad_(True)
    forward = module(backbone, head, sequence, **changes)
    drawn = [dp.dp_iqa_data.Drawn(image, False) for image in request.data.images[:pictures]]
    forward.scores(drawn).square().sum().backward()
    found = {name: p.grad.clone() for name, p in head.nets.named_parameters() if p.grad is not None}
    head.nets.zero_grad()
    return found


@pytest.fixture
def moved(dp, backbone, request_for):
    """A head whose adapters are not at their beginning."""
    request = request_for(adapters=BOTH)
    shape = dp.dp_iqa_head_of.fitting_shape(backbone.family, 32, **{**SIZES, **BOTH}, side=64)
    head = dp.dp_iqa_head_of.untrained(backbone, shape, request.settings)
    with torch.no_grad():
        head.nets.text_adapter.gamma.fill_(0.5)
        for layer in head.nets.img_adapter.out:
            layer.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return request, head


def test_gradients_reach_both_adapters_and_checkpointing_changes_none(dp, backbone, moved):
    request, head = moved
    plain = gradients(dp, backbone, request, head)
    again = gradients(dp, backbone, request, head, again=True, rows=1)
    assert set(plain) == {name for name, _ in head.nets.named_parameters()}
    assert all(plain[name].abs().sum() > 0 for name in ("text_adapter.fc.0.weight", "img_adapter.conv_in.weight"))
    for name, gradient in plain.items():
        assert torch.allclose(gradient, again[name], atol=1e-4 * float(gradient.abs().max()) + 1e-7), name


def test_checkpointing_keeps_nothing_of_a_forward(dp, backbone, moved):
    """Counted: what autograd saves between forward and backward."""
    request, head = moved
    saved = []

    def measured(**changes):
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            module = dp.dp_iqa_forward.Forward
            head.nets.requires_grad_(True)
            forward = module(backbone, head, dp.dp_iqa_text_of.text_sequence(backbone, "end"), **changes)
            drawn = [dp.dp_iqa_data.Drawn(image, False) for image in request.data.images[:2]]
            forward.scores(drawn)
        return sum(saved)

    assert measured(again=True) < 0.2 * measured()


def test_a_cached_decoder_can_be_given_adapters(dp, backbone, request_for, tmp_path):
    """First the decoder on cached features, then adapters alone, which begin where it stopped."""
    first = request_for("first")
    before = dp.dp_iqa.train_dp_iqa(first, backbone).validation
    second = request_for("second", adapters=BOTH, start=first.out, freeze_decoder=True, steps=2, rate=1e-12)
    dp.dp_iqa.train_dp_iqa(second, backbone)
    a, b = load_file(first.out), load_file(second.out)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert {name.split(".")[0] for name in set(b) - set(a)} == {"text_adapter", "img_adapter"}
    found = dp.dp_iqa_file_of.load_dp_iqa(second.out).meta.validation
    assert found["rmse"] == pytest.approx(before["rmse"], abs=0.2)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(dp, backbone, request_for, precision):
    result = dp.dp_iqa.train_dp_iqa(request_for(adapters=BOTH, precision=precision, steps=2), backbone)
    assert result.head is not None


def test_margin_ranking_counts(dp, backbone, request_for):
    a = dp.dp_iqa.train_dp_iqa(request_for("mse"), backbone).head
    b = dp.dp_iqa.train_dp_iqa(request_for("rank", losses=LossWeights(1.0, 0.5)), backbone).head
    assert a.digest() != b.digest()


def test_two_processes_give_the_step_of_one(dp, backbone, request_for, moved):
    """Each takes every other picture; the mean of their gradients is what one process has."""
    request, _ = moved
    drawn = dp.dp_iqa_data.draw(dp.dp_iqa_data.split(request), request, 0)
    assert len({one.image.path for one in drawn}) == 4
    halves = [drawn[rank::2] for rank in (0, 1)]
    assert sorted(str(d.image.path) for half in halves for d in half) == sorted(str(d.image.path) for d in drawn)


def test_split_keeps_groups_and_likes_together(dp, request_for):
    part = dp.dp_iqa_data.split(request_for(content=True))
    train, held = ({image.group for image in side} for side in (part.train, part.held))
    assert not train & held
    assert dp.dp_iqa_data.split(request_for(content=True)) == part


def test_a_pass_shows_each_picture_once(dp, request_for):
    request = request_for()
    part = dp.dp_iqa_data.split(request)
    steps = len(part.train) // 4
    seen = [one.image.path for step in range(steps) for one in dp.dp_iqa_data.draw(part, request, step)]
    assert len(seen) == len(set(seen)) == 4 * steps


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 1}, {"steps": 0}, {"precision": "fp8"}, {"average": 1.0}, {"limit": 2}, {"rate": float("nan")}],
)
def test_bad_requests(request_for, wrong):
    with pytest.raises(BadInput, match="Expected"):
        request_for(**wrong)


def test_nothing_to_train_and_a_damaged_start(dp, backbone, request_for, tmp_path):
    first = request_for("first")
    dp.dp_iqa.train_dp_iqa(first, backbone)
    with pytest.raises(BadInput, match="something to train"):
        dp.dp_iqa.train_dp_iqa(request_for("none", start=first.out, freeze_decoder=True), backbone)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(first.out.read_bytes()[:50])
    with pytest.raises(UnreadableFile, match="DP-IQA head"):
        dp.dp_iqa.train_dp_iqa(request_for("torn", start=torn), backbone)


def test_the_command_trains(dp, backbone, rated, tmp_path, capsys):
    from latent_critic.core.cli.main import main

    table = tmp_path / "ratings.csv"
    table.write_text("path,score\n" + "".join(f"{image.path},{image.mos}\n" for image in rated.images))
    out = tmp_path / "cli.safetensors"
    arguments = f"train dp-iqa --data csv={table}:0:100 --model {backbone.folder} --out {out} --run {tmp_path / 'run'}"
    sizes = "--width 8 --kernel 1 --squeeze 4 --thin 4 --cells 4 --hidden 8 --text-hidden 0 --image-width 0 --side 64"
    assert main(f"{arguments} {sizes} --steps 2 --batch 4 --share 0.3 --by-group --rank-weight 0.5".split()) == 0
    assert "wrote" in capsys.readouterr().err
    assert dp.dp_iqa_file_of.is_dp_iqa(out)


def test_sorted_ratings_come_mixed(dp, request_for):
    """The decoder's first scale, calibration and validation take the first pictures of a side."""
    request = request_for()
    images = tuple(sorted(request.data.images, key=lambda image: image.mos))
    part = dp.dp_iqa_data.split(replace(request, data=replace(request.data, images=images)))
    for side in (part.train, part.held):
        ratings = [image.mos for image in side]
        assert ratings != sorted(ratings)
    assert not {image.group for image in part.train} & {image.group for image in part.held}
    assert part == dp.dp_iqa_data.split(replace(request, data=replace(request.data, images=images)))
