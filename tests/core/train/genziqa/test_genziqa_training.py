"""What GenzIQA's training makes: a head that scores, its scales, its levels, its file."""

from dataclasses import replace

import pytest
import torch
from latent_critic.core.data.rated import RatedSet
from latent_critic.core.errors import BadInput
from latent_critic.core.train.genziqa_losses import LossWeights
from safetensors.torch import load_file
from scipy import stats


def test_ladders_teach_that_damage_is_worse(genziqa, backbone, request_for):
    """The rating of these pictures is their contrast; ladders of contrast alone say so too, without ratings' help."""
    request = request_for(
        steps=30, ladders=4, ladder_kinds=("contrast",), levels=(33,), ladder_weight=5.0, validate_every=100
    )
    run = genziqa.genziqa._Run(request, backbone, None, genziqa.genziqa_world.Alone())
    run.begin()
    losses = [run.one_step() for _ in range(30)]
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])


def test_only_context_and_lora_change(genziqa, backbone, request_for):
    before = {name: value.clone() for name, value in backbone._unet.state_dict().items()}
    head = genziqa.genziqa.train_genziqa(request_for(steps=2), backbone).head
    fresh = genziqa.genziqa.untrained(backbone, request_for().settings, context=2, rank=2)
    assert not torch.equal(head.prompts.context["l"], fresh.prompts.context["l"])
    changed = [not torch.equal(head.lora.layers[where][1], up) for where, (_, up) in fresh.lora.layers.items()]
    assert all(changed)
    assert all(torch.equal(before[name], value) for name, value in backbone._unet.state_dict().items())


def test_it_learns_and_the_file_scores(genziqa, backbone, request_for, rated):
    from latent_critic.core.images import load_image
    from latent_critic.core.methods.genziqa import GenzIQA
    from latent_critic.core.methods.genziqa_file import load_genziqa

    losses = []
    request = request_for(
        steps=40, batch=8, levels=(33, 69), one_level=True, validate_every=20, validate_on=12, calibrate_on=28,
        losses=LossWeights(1.0, 0.0, 1.0), flip=False, context=4, rank=4,
    )  # fmt: skip
    result = genziqa.genziqa.train_genziqa(
        request, backbone, lambda what, done, total, figures: losses.append(figures["loss"])
    )
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    assert result.validation["srcc"] > 0.7
    head = load_genziqa(request.out)
    assert head.meta.validation["srcc"] == pytest.approx(result.validation["srcc"])
    assert "srcc_two_levels_with_published" in head.meta.validation
    scorer = GenzIQA(backbone, head)
    assert scorer.spec.calibrated
    images = rated.images[::4]
    batch = scorer.score([load_image(image.path) for image in images])
    apart = [abs(score.value - image.mos) for score, image in zip(batch, images, strict=True)]
    assert sum(apart) / len(apart) < 20.0
    check_other_levels(genziqa, request, head, backbone)


def check_other_levels(genziqa, request, head, backbone):
    """At one level the file's gain, offset, centre and spread are those of least squares on the pictures trained on."""
    from latent_critic.core.images import load_image
    from latent_critic.core.methods.genziqa import GenzIQA
    from latent_critic.core.methods.genziqa_settings import GenzIQAOptions

    (part,) = genziqa.genziqa_data.split(request)
    images = part.train[: request.calibrate_on]
    scorer = GenzIQA(backbone, head, GenzIQAOptions(timesteps=(69,)))
    assert scorer.spec.calibrated
    raw = [score.attributes["raw"] for score in scorer.score([load_image(image.path) for image in images])]
    fit = stats.linregress(raw, [image.mos for image in images])
    found = head.readout((69,))
    assert (found.gain, found.offset) == (pytest.approx(fit.slope, rel=0.02), pytest.approx(fit.intercept, rel=0.02))
    scores = found.offset + found.gain * torch.tensor(raw)
    assert found.centre == pytest.approx(float(scores.mean()), rel=1e-3)
    assert found.spread == pytest.approx(float(scores.std(correction=0)), rel=1e-2)
    assert head.readout((69, 33)) == head.own_readout
    assert head.readout((9, 69)) is None


def test_sets_keep_their_own_scales(genziqa, backbone, request_for, rated):
    """The second set is rated the other way round: gain and offset are its own."""
    turned = RatedSet("turned", tuple(replace(image, mos=10.0 - image.mos / 10.0) for image in rated.images))
    request = request_for(data=(rated, turned), steps=2)
    genziqa.genziqa.train_genziqa(request, backbone)
    run = genziqa.genziqa._Run(request, backbone, None, genziqa.genziqa_world.Alone())
    run.begin()
    first, second = run.readouts
    assert first.gain * second.gain < 0
    assert abs(first.gain) > 5 * abs(second.gain)
    places = {genziqa.genziqa_data.draw(run.parts, request, step)[0] for step in range(20)}
    assert places == {0, 1}


def test_the_published_readout_is_left_alone(genziqa, backbone, request_for):
    from latent_critic.core.methods.genziqa_settings import GenzSettings

    settings = GenzSettings(timesteps=(33,), side=64, offset=48.3)
    head = genziqa.genziqa.train_genziqa(request_for(readout=False, settings=settings, steps=2), backbone).head
    assert (head.settings.gain, head.settings.offset) == (1.0, 48.3)


def test_a_head_that_shall_only_rank_has_no_scale(genziqa, backbone, request_for):
    from latent_critic.core.methods.genziqa import GenzIQA

    head = genziqa.genziqa.train_genziqa(request_for(steps=1, calibrated_on=None), backbone).head
    assert (head.meta.scale, head.meta.calibrated_on) == (None, None)
    assert not GenzIQA(backbone, head).spec.calibrated


def test_the_command_trains_and_goes_on(tiny_folder, rated, tmp_path, capsys):
    from latent_critic.core.cli import training
    from latent_critic.core.cli.main import build_parser
    from latent_critic.core.methods.genziqa_file import load_genziqa

    table = tmp_path / "rated.csv"
    table.write_text("".join(f"{image.path},{image.mos / 20:.3f},{image.group}\n" for image in rated.images))
    out = tmp_path / "head.safetensors"
    arguments = [
        "train", "genziqa", "--data", f"csv={table}:0:5", "--model", str(tiny_folder), "--out", str(out),
        "--run", str(tmp_path / "run"), "--context", "2", "--rank", "1", "--timesteps", "33", "--side", "64",
        "--steps", "2", "--batch", "4", "--validate-on", "6", "--plcc-weight", "1", "--one-level",
        "--calibrated-on", "contrasts", "--share", "0.3", "--padding-mask", "--half", "--no-mirror",
        "--by-group", "--ladders", "1", "--ladder-kinds", "jpeg", "--temperature", "0.2",
    ]  # fmt: skip
    parsed = build_parser().parse_args([*arguments, "--minutes", "0"])
    assert parsed.run(parsed) == 0
    assert not out.exists()
    assert "goes on" in capsys.readouterr().err
    parsed = build_parser().parse_args(arguments)
    assert parsed.run(parsed) == 0
    head = load_genziqa(out)
    assert head.meta.calibrated_on == "contrasts"
    assert (head.lora.rank, head.settings.timesteps, head.prompts.padding_mask) == (1, (33,), True)
    assert head.settings.temperature == 0.2
    assert not head.meta.settings["training"]["flip"]
    assert {value.dtype for value in load_file(out).values() if value.is_floating_point()} == {torch.float16}
    assert head.meta.settings["training"]["losses"] == {"mse": 1.0, "rank": 0.0, "plcc": 1.0}
    with pytest.raises(BadInput, match="LOADER=PATH"):
        training.rated("nothing")
