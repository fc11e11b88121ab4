"""Training of DiffV2IQA heads: the scorer's own scores, cached restorations, runs that resume, a ViT of its own."""

import json
from dataclasses import replace

import pytest
import torch
from latent_critic.core.benchmark.agreement import agreement
from latent_critic.core.errors import BadInput
from latent_critic.core.images import load_image
from latent_critic.core.methods.diff_v2_iqa import DiffV2IQA
from latent_critic.core.methods.diff_v2_iqa_eyes import load_eyes
from latent_critic.core.methods.diff_v2_iqa_file import load_diff_v2
from latent_critic.core.methods.diff_v2_iqa_settings import DiffSettings
from latent_critic.core.nets.diff_v2 import DiffShape
from latent_critic.core.nets.diff_v2_vit import VitShape
from latent_critic.core.nets.restorer import RestorerNet, RestorerShape
from latent_critic.core.restoration.sr3 import Sr3Options, Sr3Restorer
from latent_critic.core.train.diff_v2 import train_diff_v2
from latent_critic.core.train.diff_v2_request import DiffRequest
from latent_critic.core.train.dp_iqa_data import split
from latent_critic.core.train.genziqa_losses import LossWeights
from safetensors.torch import load_file

JUDGE = DiffSettings(side=64)
VIT = DiffSettings(side=32, patches="vit", blocks=(0, 1, 2, 3), vit=VitShape(32, 8, 8, 4, 2))
NARROW = {settings: DiffShape.narrow(settings.maps, settings.features, settings.grid) for settings in (JUDGE, VIT)}


class Counting(Sr3Restorer):
    """SR3's own code, its calls counted."""

    pictures = 0

    def restore(self, images, *, watch=None):
        self.pictures += len(images)
        found = super().restore(images, watch=watch)
        dark = images.flatten(1).mean(1) < getattr(self, "refused", -1.0)
        return replace(found, reasons=tuple("too dark" if d else r for d, r in zip(dark, found.reasons, strict=True)))


@pytest.fixture
def restorer():
    torch.manual_seed(0)
    return Counting(RestorerNet(RestorerShape(8, (1, 2), 1, (), groups=4)).eval(), Sr3Options(steps=4, eta=0.0))


@pytest.fixture
def request_for(rated, tmp_path):
    def make(name="run", settings=JUDGE, **changes):
        given = {
            "data": rated, "out": tmp_path / f"{name}.safetensors", "run": tmp_path / name, "content": False,
            "settings": settings, "shape": NARROW[settings], "batch": 4, "steps": 4, "validate_every": 2,
            "validate_on": 8, "share": 0.3, "average": 0.5, "rows": 2,
        }  # fmt: skip
        return DiffRequest(**{**given, **changes})

    return make


@pytest.mark.parametrize("how", ["features", "restorations", "own_vit"])
def test_a_head_is_written_and_scores_as_it_was_measured(request_for, restorer, how):
    """What training validates is the scorer's own score of the file it wrote."""
    changes = {"settings": VIT, "own_vit": True} if how == "own_vit" else {"cache": how}
    request = request_for(**changes)
    result = train_diff_v2(request, restorer)
    assert result.step == 4
    head = load_diff_v2(request.out)
    assert head.meta.training_set == "contrasts"
    assert head.meta.sigmas == tuple(sorted(head.meta.sigmas, reverse=True))
    assert len(head.meta.sigmas) == 3
    assert head.meta.settings["training"]["steps"] == 4
    assert (head.vit is not None) == (how == "own_vit")
    held = split(request).held[:8]
    scorer = DiffV2IQA(restorer, head, load_eyes(head.settings, vit=head.vit))
    scores = scorer.score([load_image(image.path) for image in held]).values()
    found = agreement(scores, [image.mos for image in held])
    # What is cached is kept in half precision.
    assert found.rmse == pytest.approx(head.meta.validation["rmse"], abs=0.2)
    assert found.plcc == pytest.approx(head.meta.validation["plcc"], abs=0.05)


def test_the_pictures_ratings_are_learned(request_for, restorer):
    losses = []

    def watch(what, done, total, figures):
        if what == "training":
            losses.append(figures["loss"])

    train_diff_v2(
        request_for(steps=120, rate=1e-2, batch=14, validate_every=120, flip=False, drop=0.0), restorer, watch
    )
    assert sum(losses[-10:]) / 10 < 0.3 * sum(losses[:5]) / 5


def test_a_resumed_run_equals_an_uninterrupted_one_and_restores_nothing_twice(request_for, restorer):
    changes = {"drop": 0.3, "losses": LossWeights(1.0, 0.5, 0.5)}
    whole = request_for("whole", **changes)
    full = train_diff_v2(whole, restorer)
    before = restorer.pictures
    assert before == 40

    class Stop(Exception):
        pass

    def stop_at_three(what, done, total, figures):
        if what == "training" and done == 3:
            raise Stop

    request = request_for("pieces", **changes)
    with pytest.raises(Stop):
        train_diff_v2(request, restorer, stop_at_three)
    pieces = train_diff_v2(request, restorer)
    assert restorer.pictures == 2 * before
    a, b = (load_file(path) for path in (whole.out, request.out))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert full.validation == pieces.validation
    lines = (request.run / "log.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 2


def test_stopped_while_restoring_it_goes_on(request_for, restorer):
    class Stop(Exception):
        pass

    def stop_at_ten(what, done, total, figures):
        if (what, done) == ("restorations", 10):
            raise Stop

    with pytest.raises(Stop):
        train_diff_v2(request_for(), restorer, stop_at_ten)
    assert train_diff_v2(request_for(), restorer).head is not None
    assert restorer.pictures == 40


def test_minutes_stop_a_run_that_then_goes_on(request_for, restorer):
    request = request_for()
    assert train_diff_v2(replace(request, minutes=0.0), restorer).head is None
    assert not request.out.exists()
    assert train_diff_v2(request, restorer).head is not None


@pytest.mark.parametrize("branch", ["vcg", "vda"])
def test_a_branch_alone_is_trained(request_for, restorer, branch):
    shape = replace(NARROW[JUDGE], branch=branch)
    head = train_diff_v2(request_for(shape=shape), restorer).head
    assert (head.nets.vcg is None, head.nets.vda is None) == (branch == "vda", branch == "vcg")


def test_lambda_moves_only_where_it_is_learned(request_for, restorer):
    fixed = train_diff_v2(request_for("fixed"), restorer).head
    learned = train_diff_v2(request_for("learned", shape=replace(NARROW[JUDGE], learned=True)), restorer).head
    assert float(fixed.nets.weight) == 5.0
    assert float(learned.nets.weight) != 5.0


def test_what_cannot_be_restored_is_left_out(request_for, restorer, caplog):
    """A training set of thousands does not stop at one picture."""
    request = request_for()
    images = [load_image(image.path) for image in request.data.images]
    means = sorted(float(DiffSettings(side=64).cut(image)[0].pixels.mean()) for image in images)
    restorer.refused = means[3]
    result = train_diff_v2(request, restorer)
    assert result.head.meta.pictures + result.validation["n"] <= 37
    assert caplog.text.count("is left out: too dark") >= 3


def test_what_could_not_be_restored_is_tried_again_until_training_begins(request_for, restorer):
    """A fault of the machine leaves nothing out for ever; a run that has begun keeps its pictures."""
    request = request_for(steps=2, validate_on=40)
    means = [float(DiffSettings(side=64).cut(load_image(image.path))[0].pixels.mean()) for image in request.data.images]
    restorer.refused = sorted(means)[3]

    class Stop(Exception):
        pass

    def stop(what, done, total, figures):
        if what == "training":
            raise Stop

    with pytest.raises(Stop):
        train_diff_v2(request, restorer, stop)
    bad = sum(mean < restorer.refused for mean in means)
    assert (restorer.pictures, bad) == (40, 3)
    restorer.refused = -1.0
    result = train_diff_v2(request, restorer)
    assert restorer.pictures == 43
    assert result.head.meta.pictures + result.validation["n"] == 40
    begun = request_for("begun", steps=2)
    restorer.refused = sorted(means)[3]
    first = train_diff_v2(begun, restorer)
    restorer.refused = -1.0
    assert train_diff_v2(begun, restorer).validation == first.validation
    assert restorer.pictures == 83


def test_a_damaged_file_of_the_cache_is_made_again(request_for, restorer, caplog):
    request = request_for(steps=2)
    train_diff_v2(request, restorer)
    before, files = restorer.pictures, sorted((request.run / "cache").rglob("*.safetensors"))
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    train_diff_v2(request, restorer)
    assert files[0].read_bytes() == whole
    assert restorer.pictures == before + 1
    assert caplog.text.count("is made again") == 1


def test_another_request_or_restorer_does_not_go_on(request_for, restorer):
    train_diff_v2(request_for(), restorer)
    with pytest.raises(BadInput, match="same request"):
        train_diff_v2(request_for(rate=1e-4), restorer)
    other = Sr3Restorer(restorer._net, Sr3Options(steps=4, eta=0.0, seed=1))
    with pytest.raises(BadInput, match="same restorer"):
        train_diff_v2(request_for(), other)
    # The rate falls over all steps: to go on with more of them would be another training.
    with pytest.raises(BadInput, match="same request"):
        train_diff_v2(request_for(steps=8), restorer)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": 1}, "batch from 2"),
        ({"drop": 1.0}, "average and drop"),
        ({"precision": "int8"}, "fp32"),
        ({"limit": 3}, "limit of 4"),
        ({"own_vit": True}, "sizes of a ViT"),
    ],
)
def test_requests_that_make_no_sense(request_for, changes, words):
    with pytest.raises(BadInput, match=words):
        request_for(**changes)


def test_the_command_trains_and_its_head_finds_its_restorer(rated, restorer, tmp_path, monkeypatch, capsys):
    """From files to a file; the head's scorer restores with the settings of its training."""
    from latent_critic.core.cli.main import main
    from latent_critic.core.methods.diff_v2_iqa_make import make_diff_v2
    from latent_critic.core.restoration.weights import RestorerFacts, save_restorer

    save_restorer(tmp_path / "r.safetensors", restorer._net, RestorerFacts(restorer._net.shape, steps=5, eta=0.0))
    table, out = tmp_path / "rated.csv", tmp_path / "head.safetensors"
    table.write_text("".join(f"{image.path},{image.mos / 20:.3f},{image.group}\n" for image in rated.images))
    arguments = [
        "train", "diff-v2-iqa", "--data", f"csv={table}:0:5", "--restorer", str(tmp_path / "r.safetensors"), "--out",
        str(out), "--run", str(tmp_path / "run"), "--steps", "2", "--batch", "4", "--side", "32", "--by-group",
        "--restore-steps", "4", "--restore-seed", "3", "--limit", "16", "--share", "0.3", "--threads", "1",
    ]  # fmt: skip
    assert main(arguments) == 0
    assert "step 2" in capsys.readouterr().err
    scorer = make_diff_v2(load_diff_v2(out), restorer=tmp_path / "r.safetensors", folder=tmp_path / "kept")
    picture = load_image(rated.images[0].path)
    first = scorer.score([picture])[0]
    assert first.attributes["denoiser_calls"] == 4
    assert scorer.spec.calibrated
    again = scorer.score([picture])[0]
    assert again.attributes["denoiser_calls"] == 0
    assert again.value == first.value
    assert len(list((tmp_path / "run/restorations").rglob("*.safetensors"))) == 16
    capsys.readouterr()
    named = ["--scorer", "diff_v2_iqa", "--head", str(out), "--restorer", str(tmp_path / "r.safetensors")]
    monkeypatch.setenv("LATENT_CRITIC_CACHE", str(tmp_path / "user"))
    mine = ["--restorations", str(tmp_path / "mine")]
    for more, calls, kept in (
        (["--restorations", "off"], 4, None), ([], 4, "user/restorations"), ([], 0, "user/restorations"),
        (mine, 4, "mine"), (mine, 0, "mine"), (["--restorations", "off"], 4, None),
    ):  # fmt: skip
        assert main(["score", str(rated.images[0].path), *named, *more, "--json", "-"]) == 0
        told = capsys.readouterr()
        (row,) = json.loads(told.out)
        assert row["score"] == pytest.approx(first.value, abs=1e-4)  # kept or not, as in nodes
        assert row["scorer"] == "diff_v2_iqa"
        assert f"1 pictures, {calls} denoiser calls" in told.err
        assert kept is None or len(list((tmp_path / kept).rglob("*.safetensors"))) == 1
    told = ["benchmark", "--data", "csv", "--root", str(table), "--scale", "0", "5", "--resamples", "20", *named]
    assert main([*told, "--json", str(tmp_path / "figures.json")]) == 0
    (figures,) = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["scorer"], figures["n"]) == ("diff_v2_iqa", 40)
