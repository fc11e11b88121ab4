"""The judge taught by other scorers: targets, losses, ladders, the gain on held-back pictures, and who may teach."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from latent_critic.core.cli.main import main
from latent_critic.core.data.loaders import rated_csv
from latent_critic.core.errors import BadInput
from latent_critic.core.methods.blend import Blend
from latent_critic.core.methods.judge import Judge
from latent_critic.core.methods.on_model import shipped_head
from latent_critic.core.nets.judge_file import read
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec
from latent_critic.core.train import judge_distil, teachers
from latent_critic.core.train.judge import train_judge
from latent_critic.core.train.judge_distil import Distillation
from latent_critic.core.train.judge_head import HeadSettings
from latent_critic.core.train.judge_request import JudgeRequest
from latent_critic.core.train.teachers import Teacher, on_the_scale
from PIL import Image
from scipy.ndimage import gaussian_filter

SETTINGS = HeadSettings(members=2, width=8, epochs=8, batch=8)


class Sharpness:
    """A scorer with a map: what the pixels' differences say, negated where asked."""

    def __init__(self, direction="higher", maps=True, academic=False, silent=()):
        self.academic, self.looks, self.silent = academic, 0, silent
        self.spec = ScoreSpec(name="sharpness", direction=direction)
        if not maps:
            self.read = None

    def score(self, images, prompts=None, *, watch=None):
        return self._read(images)[0]

    def read(self, images, prompts=None, *, watch=None):
        return self._read(images)

    def _read(self, images):
        scores, maps = [], []
        for place, image in enumerate(images):
            self.looks += 1
            edges = (image[:, 1:, 1:] - image[:, :-1, :-1]).abs()
            value = float(edges.mean()) * (1 if self.spec.direction == "higher" else -1)
            gone = self.looks in self.silent
            scores.append(Score(None, place, reason="no") if gone else Score.of(value, place))
            maps.append(None if gone else edges)
        return ScoreBatch(self.spec, tuple(scores)), maps


def textures(folder, count, seed):
    draw, made = np.random.default_rng(seed), []
    for place in range(count):
        blur = draw.uniform(0, 4)
        texture = gaussian_filter(draw.normal(size=(200, 220, 3)), (blur, blur, 0))
        pixels = (128 + 60 * texture / texture.std()).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
        made.append((folder / f"{place}.png", 100 - 20 * blur))
    return made


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Forty textures, rated by how little they were blurred."""
    folder = tmp_path_factory.mktemp("rated")
    rows = [f"{path.name},{mos:.3f}" for path, mos in textures(folder, 40, 0)]
    (folder / "list.csv").write_text("\n".join(["path,score", *rows]))
    return rated_csv(folder / "list.csv")


@pytest.fixture(scope="module")
def unrated(tmp_path_factory):
    return tuple(path for path, _ in textures(tmp_path_factory.mktemp("unrated"), 6, 1))


def request(rated, folder, distil, **rest):
    settings = {"settings": SETTINGS, "shard": 10, "per_group": 4, "distil": distil} | rest
    return JudgeRequest(rated, folder / "mine.safetensors", folder / "cache", **settings)


def test_a_taught_judge_says_what_the_teacher_brought(rated, unrated, tmp_path):
    """The file holds the gain with its interval, and the head that the held-back pictures asked for."""
    distil = Distillation((Teacher(Sharpness(), "sharpness"),), unrated, ladders=1)
    result = train_judge(request(rated, tmp_path, distil))
    gain = result.gain
    assert gain.difference == pytest.approx(gain.taught.srcc - gain.alone.srcc, abs=1e-6)
    assert gain.low <= gain.difference <= gain.high
    told = result.facts.settings["teacher"]
    assert told["names"] == ["sharpness"]
    assert told["taught"] == gain.pays
    assert result.validation == (gain.taught if gain.pays else gain.alone)
    assert read(tmp_path / "mine.safetensors")[1].settings["teacher"]["gain"]["difference"] == gain.difference
    plain = train_judge(request(rated, tmp_path / "plain", None))
    assert plain.gain is None
    assert plain.validation == gain.alone
    same = torch.equal(
        Judge.load(path=tmp_path / "mine.safetensors").network.head.out.weight,
        Judge.load(path=tmp_path / "plain/mine.safetensors").network.head.out.weight,
    )
    assert same != gain.pays


def test_a_gain_that_may_be_none_writes_the_plain_head(rated, unrated, tmp_path, monkeypatch):
    taught = []
    inner = judge_distil.Gain.pays
    monkeypatch.setattr(judge_distil.Gain, "pays", property(lambda self: taught.append(inner.fget(self)) or True))
    distil = Distillation((Teacher(Sharpness()),), unrated)
    train_judge(request(rated, tmp_path / "forced", distil))
    forced = Judge.load(path=tmp_path / "forced/mine.safetensors").network.head.out.weight
    monkeypatch.setattr(judge_distil.Gain, "pays", property(lambda self: False))
    train_judge(request(rated, tmp_path / "not", distil))
    train_judge(request(rated, tmp_path / "plain", None))
    weights = [
        Judge.load(path=tmp_path / f"{name}/mine.safetensors").network.head.out.weight for name in ("not", "plain")
    ]
    assert torch.equal(*weights)
    assert not torch.equal(forced, weights[0])


def test_the_teachers_scores_are_learned(rated, tmp_path):
    """Taught by the scores alone, the head follows its teacher more closely than one of ratings that are half noise."""
    from latent_critic.core.train.judge import gather, learn
    from latent_critic.core.train.judge_head import fit_head

    draw = np.random.default_rng(5)
    images = tuple(replace(image, mos=float(np.clip(image.mos + 40 * draw.normal(), 0, 100))) for image in rated.images)
    noisy = replace(rated, images=images)
    distil = Distillation((Teacher(Sharpness()),), tuple(image.path for image in rated.images), score_weight=1.0)
    settings = replace(SETTINGS, epochs=40, rate=3e-3, drop_input=0.0, drop_hidden=0.0)
    found = gather(request(noisy, tmp_path, distil))
    kept = list(range(40))
    lessons = learn(distil, found, kept, noisy)
    taught = judge_distil.fit_taught(found.described, found.mos, lessons, kept, distil, settings)
    plain = fit_head(found.described, found.mos, settings)
    follows = [float(np.corrcoef(head(found.described), lessons.scores[:40])[0, 1]) for head in (taught, plain)]
    assert follows[0] > max(0.9, follows[1])


def test_the_map_loss_counts(rated, unrated, tmp_path):
    weights = {}
    for name, maps, weight in (("with", True, 1.0), ("zero", True, 0.0), ("without", False, 1.0)):
        distil = Distillation((Teacher(Sharpness(maps=maps)),), unrated, map_weight=weight)
        asked = request(rated, tmp_path, distil)
        from latent_critic.core.train.judge import gather, learn

        found = gather(asked)
        kept = list(range(40))
        lessons = learn(distil, found, kept, rated)
        assert lessons.maps.shape[1] == (48 if maps else 0)
        weights[name] = judge_distil.fit_taught(found.described, found.mos, lessons, kept, distil, SETTINGS).out.weight
        for shard in (tmp_path / "cache/lessons").rglob("*.safetensors"):
            shard.unlink()
    assert not torch.equal(weights["with"], weights["zero"])
    assert torch.equal(weights["zero"], weights["without"])


def test_lessons_are_kept_and_gone_on_with(unrated, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "_SHARD", 2)
    scorer = Sharpness(silent=(2,))
    lesson = Teacher(scorer).lesson(unrated, tmp_path)
    assert scorer.looks == 6
    assert torch.isnan(lesson.scores).tolist() == [False, True, False, False, False, False]
    assert lesson.maps.shape == (6, 48)
    again = Teacher(scorer).lesson(unrated, tmp_path)
    assert scorer.looks == 6
    assert torch.equal(lesson.maps, again.maps)
    next(tmp_path.rglob("*.safetensors")).unlink()
    Teacher(scorer).lesson(unrated, tmp_path)
    assert scorer.looks == 8


def test_ladders_are_damaged_pictures(unrated, tmp_path):
    distil = Distillation((Teacher(Sharpness()),), unrated[:2], ladders=2)
    made = judge_distil.pictures(distil, tmp_path)
    assert len(made) == 2 + 2 * 2 * 3
    assert len(set(made)) == len(made)
    assert all(path.exists() for path in made)
    stamps = [path.stat().st_mtime_ns for path in made]
    assert [path.stat().st_mtime_ns for path in judge_distil.pictures(distil, tmp_path)] == stamps


def test_lower_is_better_and_an_ensemble_averages_on_one_scale(rated, unrated, tmp_path):
    from latent_critic.core.train.judge import gather, learn

    up, down = Teacher(Sharpness()), Teacher(Sharpness(direction="lower"))
    asked = request(rated, tmp_path, Distillation((up, down), unrated))
    found = gather(asked)
    kept = list(range(40))
    together = learn(asked.distil, found, kept, rated).scores
    alone = learn(Distillation((up,), unrated), found, kept, rated).scores
    assert torch.allclose(together, alone, atol=1e-3)
    assert float(np.corrcoef(alone[:40], found.mos)[0, 1]) > 0.5


def test_a_scale_needs_a_teacher_that_agrees():
    mos = torch.tensor([10.0, 50.0, 90.0])
    scores = torch.tensor([1.0, 2.0, 3.0, float("nan")])
    assert on_the_scale(scores, [0, 1, 2], mos)[:3].tolist() == pytest.approx([10.0, 50.0, 90.0])
    with pytest.raises(BadInput, match="go up with"):
        on_the_scale(-scores, [0, 1, 2], mos)
    with pytest.raises(BadInput, match="apart"):
        on_the_scale(torch.ones(3), [0, 1, 2], mos)


def test_academic_weights_may_not_teach(tmp_path):
    with pytest.raises(BadInput, match="academic use only"):
        Teacher(Sharpness(academic=True))
    said = Sharpness()
    said.spec = replace(said.spec, settings={"use": "academic use"})
    for hidden in (said, Blend([Sharpness(), said]), Blend([Blend([said]), Sharpness()])):
        with pytest.raises(BadInput, match="academic use only"):
            Teacher(hidden)
    assert Teacher(Blend([Sharpness(), Sharpness()])).scorer.spec.settings["parts"]
    path = tmp_path / "teacher.pth"
    torch.save({"QFD.fc1.weight": torch.zeros(1)}, path)
    with pytest.raises(BadInput, match="the authors' teacher, for academic use only"):
        teachers.build(f"dp_iqa={path}", "embedded")
    torch.save({"base_model.features.0.0.weight": torch.zeros(1)}, path)
    with pytest.raises(BadInput, match="the authors' student, for academic use only"):
        teachers.build(f"dp_iqa={path}", "embedded")


@pytest.mark.parametrize(
    ("text", "model", "words"),
    [
        ("musiq", "embedded", "out of judge"), ("lgdm", "a folder", "lgdm=FILE"), ("dp_iqa", "a folder", "dp_iqa=FILE"),
        ("zero_shot=a.safetensors", "embedded", "zero_shot alone"),
    ],
)  # fmt: skip
def test_unknown_teachers(text, model, words):
    with pytest.raises(BadInput, match=words):
        teachers.build(text, model)


@pytest.mark.parametrize("name", ["dp_iqa", "genziqa"])
def test_a_head_that_ships_teaches_by_its_name(diffusers, name):
    """The file is the one behind the name; on the embedded model, for which it was made."""
    found = teachers.build(name, "embedded").scorer.spec
    assert found.name == name
    assert found.digest == teachers.build(f"{name}={shipped_head(name)}", "embedded").scorer.spec.digest


def test_diff_v2_iqa_teaches(tmp_path, monkeypatch):
    """By its own maker: no diffusion model is read for a head with a restorer of its own."""
    from latent_critic.core.methods import diff_v2_iqa_make

    head = SimpleNamespace(meta=SimpleNamespace(method="diff_v2_iqa", identity={"restorer.name": "sr3"}))
    monkeypatch.setattr(teachers, "read_head", lambda path: head)
    monkeypatch.setattr(teachers, "_backbone", lambda *_: pytest.fail("no model is needed"))
    monkeypatch.setattr(diff_v2_iqa_make, "make_diff_v2", lambda given, **_: Sharpness() if given is head else None)
    assert teachers.build("diff_v2_iqa=a.safetensors", "embedded").name == "diff_v2_iqa"
    head.meta.method = "dp_iqa"
    with pytest.raises(BadInput, match="one for dp_iqa"):
        teachers.build("diff_v2_iqa=a.safetensors", "embedded")


@pytest.mark.parametrize("wrong", [{"teachers": ()}, {"score_weight": 1.5}, {"map_weight": -1.0}, {"ladders": 99}])
def test_bad_distillations(wrong):
    with pytest.raises(BadInput, match="Expected"):
        Distillation(**{"teachers": (SimpleNamespace(),), **wrong})


def test_the_command_teaches(rated, unrated, tmp_path, capsys, monkeypatch):
    """The shipped judge teaches a judge of one's own, on rated and unrated pictures."""
    from latent_critic.core.cli.main import main

    alone = "latent_critic.core.train.judge.content_groups"  # forty pictures make two clusters, one too small
    monkeypatch.setattr(alone, lambda whole, per_group, seed: list(range(len(whole))))
    table = tmp_path / "list.csv"
    table.write_text("\n".join(["path,score", *(f"{image.path},{image.mos}" for image in rated.images)]))
    arguments = f"train judge --data {table} --out {tmp_path / 'mine.safetensors'} --cache {tmp_path / 'cache'}"
    code = main(f"{arguments} --teacher judge --unlabelled {unrated[0].parent} --ladders 1".split())
    told = capsys.readouterr().err
    assert code == 0, told
    assert "teacher: SRCC" in told
    assert "head was written" in told
    assert main(f"{arguments} --unlabelled {unrated[0].parent}".split()) == 2
    assert "--teacher" in capsys.readouterr().err


def test_the_command_reports_what_the_teacher_brought(rated, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "build", lambda text, model: Teacher(Sharpness(), text))
    # Forty pictures are too few for the usual clusters: each is a content of its own.
    monkeypatch.setattr("latent_critic.core.train.judge.content_groups", lambda whole, *_: list(range(len(whole))))
    table = rated.images[0].path.parent / "list.csv"
    given = ["--data", table, "--out", tmp_path / "out.safetensors", "--cache", tmp_path / "cache"]
    given += ["--teacher", "sharpness", "--report", tmp_path / "report.json"]
    assert main(["train", "judge", *map(str, given)]) == 0
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["teachers"], found["rated"], found["unrated"]) == (["sharpness"], 40, 0)
    gain = found["gain"]
    assert gain["pays"] == (gain["low"] > 0.0)
    assert gain["difference"] == pytest.approx(gain["taught"]["srcc"] - gain["alone"]["srcc"])


def test_a_report_needs_a_teacher(rated, tmp_path, capsys):
    table = rated.images[0].path.parent / "list.csv"
    given = ["--data", table, "--out", tmp_path / "out.safetensors", "--cache", tmp_path / "cache"]
    assert main(["train", "judge", *map(str, given), "--report", "x.json"]) == 2
    assert "a teacher for" in capsys.readouterr().err
