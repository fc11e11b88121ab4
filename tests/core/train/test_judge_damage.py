"""The head taught by ladders of damage: it orders them, tells what that cost, and its file says how it was made."""

from dataclasses import replace

import numpy as np
import pytest
from latent_critic.core.data.loaders import rated_csv
from latent_critic.core.errors import BadInput
from latent_critic.core.nets.judge_file import read
from latent_critic.core.train import judge_damage
from latent_critic.core.train.judge import train_judge
from latent_critic.core.train.judge_damage import DamageLessons
from latent_critic.core.train.judge_distil import Distillation
from latent_critic.core.train.judge_head import HeadSettings
from latent_critic.core.train.judge_ladders import LadderRequest, make_ladders
from latent_critic.core.train.judge_request import JudgeRequest
from latent_critic.core.train.judge_rungs import HELD_BACK_SHARE
from PIL import Image
from scipy.ndimage import gaussian_filter

SETTINGS = HeadSettings(members=2, width=8, epochs=6, batch=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty textures whose ratings know nothing of blur, and ladders of some of them."""
    made, draw = tmp_path_factory.mktemp("damage"), np.random.default_rng(0)
    rows = ["path,score"]
    for place in range(40):
        texture = gaussian_filter(draw.normal(size=(96, 100, 3)), (1, 1, 0))
        pixels = (draw.uniform(60, 190) + 40 * texture / texture.std()).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(made / f"{place}.png")
        rows.append(f"{place}.png,{pixels.mean() / 2.55:.3f}")
    (made / "list.csv").write_text("\n".join(rows))
    contents = tuple(made / f"{place}.png" for place in range(12))
    make_ladders(LadderRequest(contents, made / "ladders", ("camera", "scale"), 2, (1, 3, 5), side=96))
    return made


def asked(folder, out, **lessons):
    data = rated_csv(folder / "list.csv")
    damage = DamageLessons(folder / "ladders", **lessons) if lessons else None
    return JudgeRequest(
        data, out / "mine.safetensors", folder / "cache", settings=SETTINGS, shard=20, per_group=4, damage=damage
    )


def test_ladders_teach_their_order_and_the_file_says_so(folder, tmp_path):
    plain = train_judge(asked(folder, tmp_path))
    result = train_judge(asked(folder, tmp_path, order=3.0, tasks=0.2, average=0.5, norm=2.0, smooth=0.5))
    brought = result.damage
    assert plain.damage is None
    assert brought is not None
    assert brought.taught["share"] > brought.plain["share"]
    assert brought.agreement.n == result.validation.n
    assert brought.agreement.low <= brought.agreement.difference <= brought.agreement.high
    apart = result.validation.srcc - plain.validation.srcc
    assert brought.agreement.difference == pytest.approx(apart), "over the same head without ladders"
    told = read(tmp_path / "mine.safetensors")[1].settings["damage"]
    assert (told["order"], told["tasks"], told["average"], told["norm"], told["smooth"]) == (3.0, 0.2, 0.5, 2.0, 0.5)
    assert told["gain"]["taught"]["share"] == brought.taught["share"]


def test_nothing_that_is_held_back_is_learned(folder, tmp_path, monkeypatch):
    """Neither the validation part nor held-back contents of ladders reach the head that is measured."""
    fits, inner = [], judge_damage.fit_changed

    def seen(described, mos, groups, settings, change, ladders):
        fits.append((len(mos), set(groups), {ladder[0].content for ladder in ladders.ladders}))
        return inner(described, mos, groups, settings, change, ladders)

    monkeypatch.setattr(judge_damage, "fit_changed", seen)
    result = train_judge(asked(folder, tmp_path, order=1.0))
    (measured, contents_of_measured, learned), (final, every, learned_finally) = fits
    assert measured == 40 - result.validation.n
    assert final == 40
    assert contents_of_measured < every
    assert learned == learned_finally
    assert learned
    assert all(int(content, 16) % HELD_BACK_SHARE for content in learned)


def test_weights_without_ladders_are_refused_and_ladders_are_read_first(folder, tmp_path, capsys):
    from latent_critic.core.cli.main import main

    command = ["train", "judge", "--data", str(folder / "list.csv"), "--cache", str(tmp_path / "cache")]
    command += ["--out", str(tmp_path / "out.safetensors")]
    assert main([*command, "--order-weight", "1"]) != 0
    assert "--damage DIR" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([*command, "--damage", str(tmp_path / "empty")]) != 0
    assert not (tmp_path / "cache").exists(), "nothing was extracted before"


def test_the_command_teaches_by_ladders(folder, tmp_path, capsys, monkeypatch):
    from latent_critic.core.cli.main import main

    inner = JudgeRequest
    small = {"settings": replace(SETTINGS, rank=4), "per_group": 4}
    monkeypatch.setattr(
        "latent_critic.core.train.judge_request.JudgeRequest", lambda *args, **named: inner(*args, **(named | small))
    )
    command = ["train", "judge", "--data", str(folder / "list.csv"), "--cache", str(folder / "cache")]
    command += ["--out", str(tmp_path / "out.safetensors"), "--damage", str(folder / "ladders"), "--squeeze", "4"]
    command += ["--norm-weight", "2"]
    assert main(command) == 0, capsys.readouterr().err
    shown = capsys.readouterr().err
    assert "steps of held-back contents" in shown
    assert "validation by content" in shown
    told = read(tmp_path / "out.safetensors")[1].settings["damage"]
    assert (told["order"], told["norm"], told["smooth"]) == (0.5, 2.0, 1.0)


def test_each_weight_reaches_the_loss():
    lessons = DamageLessons("ladders", order=3.0, rank=0.5, norm=2.0, smooth=0.25, tasks=0.2, average=0.5)
    losses, change = lessons.change.losses, lessons.change
    assert (losses.ladders, losses.rank, losses.norm_in_norm, losses.smooth) == (3.0, 0.5, 2.0, 0.25)
    assert (change.tasks, change.average) == (0.2, 0.5)
    assert set(lessons.weights) == {"order", "tasks", "rank", "norm", "smooth", "average"}


@pytest.mark.parametrize(
    "lessons",
    [{"order": 0.0}, {"order": -1.0}, {"order": 0.5, "average": 1.0}, {"tasks": float("inf")}, {"rank": float("nan")}],
)
def test_weights_that_teach_nothing_are_refused(lessons, tmp_path):
    with pytest.raises(BadInput, match="weights"):
        DamageLessons(tmp_path, **lessons)


def test_two_teachers_at_once_and_too_few_contents_are_refused(folder, tmp_path):
    request = asked(folder, tmp_path, order=0.5)
    with pytest.raises(BadInput, match="a teacher or ladders"):
        replace(request, distil=Distillation((object(),)))
    few = tmp_path / "few"
    make_ladders(LadderRequest((folder / "0.png",), few, ("camera",), 1, (1, 5), side=96))
    with pytest.raises(BadInput, match="one in 5 is held back"):
        train_judge(replace(request, damage=DamageLessons(few)))
    assert not (tmp_path / "mine.safetensors").exists()
