"""Training of GenzIQA heads: losses against other libraries, runs that resume, several sets, several processes."""

import importlib
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from latent_critic.core.data.rated import RatedSet
from latent_critic.core.errors import BadInput
from latent_critic.core.train.genziqa_losses import LossWeights, batch_loss, correlation, ladder_loss, rank_loss
from PIL import Image
from safetensors.torch import load_file
from scipy import stats

#: Pictures are encoded in other company after a resumption; a step moves a weight by a hundredth.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def genziqa(diffusers):
    names = ("genziqa", "genziqa_request", "genziqa_data", "genziqa_forward", "genziqa_measure", "genziqa_world",
             "genziqa_latents")  # fmt: skip
    return SimpleNamespace(**{name: importlib.import_module(f"latent_critic.core.train.{name}") for name in names})


@pytest.fixture(scope="module")
def backbone(tiny_folder):
    """The tiny model as a backbone with gradients."""
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.hosts.diffusers.loading import load_pipeline

    return DiffusersBackbone(load_pipeline(str(tiny_folder)))


@pytest.fixture
def request_for(genziqa, rated, tmp_path):
    from latent_critic.core.methods.genziqa_settings import GenzSettings

    def make(name="run", **changes):
        given = {
            "data": (rated,), "out": tmp_path / f"{name}.safetensors", "run": tmp_path / name, "context": 2, "rank": 2,
            "settings": GenzSettings(timesteps=(33, 69), side=64, bias_weight=8.0), "batch": 4, "rate": 1e-2,
            "steps": 4, "validate_every": 2, "validate_on": 6, "calibrate_on": 8, "share": 0.3, "content": False,
        }  # fmt: skip
        return genziqa.genziqa_request.GenzRequest(**{**given, **changes})

    return make


def test_the_losses_are_what_they_are_called():
    draw = torch.Generator().manual_seed(0)
    scores, mos = 50 + 20 * torch.randn(9, generator=draw), 100 * torch.rand(9, generator=draw)
    assert float(correlation(scores, mos)) == pytest.approx(stats.pearsonr(scores, mos).statistic, abs=1e-6)
    pairs = [
        max(0.0, min(float(mos[i] - mos[j]), 0.25) - float(scores[i] - scores[j]))
        for i in range(9)
        for j in range(9)
        if mos[i] > mos[j]
    ]
    assert float(rank_loss(scores, mos)) == pytest.approx(math.fsum(pairs) / len(pairs), rel=1e-5)
    whole = batch_loss(scores, mos, 20.0, LossWeights(1.0, 0.5, 2.0))
    expected = float(((scores - mos) / 20).square().mean()) + 0.5 * float(rank_loss(scores / 20, mos / 20))
    assert float(whole) == pytest.approx(expected + 1.0 - float(correlation(scores, mos)), rel=1e-5)


def test_losses_of_alike_pictures_are_finite_with_their_gradients():
    scores = torch.full((3,), 5.0, requires_grad=True)
    batch_loss(scores, torch.full((3,), 7.0), 1.0, LossWeights(1.0, 1.0, 1.0)).backward()
    assert scores.grad.isfinite().all()
    assert float(rank_loss(torch.zeros(2), torch.tensor([1.0, 9.0]))) == pytest.approx(0.25)


def test_ladders_ask_for_less_where_there_is_more_damage():
    assert float(ladder_loss(torch.tensor([1.0, 0.5, 0.2, 0.0]))) == pytest.approx(0.05 / 2)
    scores = torch.tensor([0.0, 0.0], requires_grad=True)
    ladder_loss(scores).backward()
    assert scores.grad.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("weights", [(0, 0, 0), (-1, 0, 1), (math.nan, 1, 1), (math.inf, 0, 0)])
def test_bad_loss_weights(weights):
    with pytest.raises(BadInput, match="Expected"):
        LossWeights(*weights)


def test_raw_values_in_training_are_the_scorers(genziqa, backbone, rated, request_for):
    """The same picture, level and noise: what is trained is what scores later."""
    from latent_critic.core.images import load_image
    from latent_critic.core.methods.genziqa import GenzIQA
    from latent_critic.core.methods.genziqa_head import untrained

    request = request_for()
    head = untrained(backbone, request.settings, context=2, rank=2)
    images = rated.images[3:6]
    drawn = [genziqa.genziqa_data.Drawn(image, 33, request.settings.seed + 33, False) for image in images]
    latents = genziqa.genziqa_latents.Latents(backbone, request.settings)
    found = genziqa.genziqa_forward.raw_values(latents, head, drawn).tolist()
    scorer = GenzIQA(backbone, head.with_settings(timesteps=(33,)))
    expected = [score.attributes["raw"] for score in scorer.score([load_image(image.path) for image in images])]
    assert found == pytest.approx(expected, abs=1e-4)


def test_latents_are_the_scorers_and_made_once(genziqa, backbone, rated, request_for, monkeypatch):
    from latent_critic.core.images import load_image
    from latent_critic.core.methods.native_size import to_native

    settings = request_for().settings
    wanted = [
        genziqa.genziqa_latents.Wanted(image.path, mirrored)
        for image in rated.images[2:6]
        for mirrored in (False, True)
    ]
    seen, encode = [], type(backbone).encode
    monkeypatch.setattr(
        type(backbone), "encode", lambda self, x, **rest: seen.append(len(x)) or encode(self, x, **rest)
    )
    latents = genziqa.genziqa_latents.Latents(backbone, settings)
    first, again = latents.of(wanted), latents.of(wanted)
    assert sum(seen) == len(wanted)
    assert len({latent.shape for latent in first}) == 2
    for (path, mirrored, *_), latent, same in zip(wanted, first, again, strict=True):
        image = load_image(path)
        image = to_native(image, settings.shape(*image.shape[1:], backbone.family))
        expected = encode(backbone, (image.flip(-1) if mirrored else image)[None])[0]
        torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(latent, same)
    small = genziqa.genziqa_latents.Latents(backbone, settings, most_bytes=first[0].numel() * 4)
    seen.clear()
    for _ in range(2):
        small.of(wanted[:1])
        small.of(wanted[1:2])
    assert len(seen) == 3


def test_a_picture_that_cannot_be_scored_is_named(genziqa, backbone, request_for, tmp_path):
    Image.new("RGB", (6, 60)).save(tmp_path / "thin.png")
    module = genziqa.genziqa_latents
    with pytest.raises(BadInput, match=r"thin\.png"):
        module.Latents(backbone, request_for().settings).of([module.Wanted(tmp_path / "thin.png")])


def test_damage_comes_before_the_resizing(genziqa, backbone, rated, request_for):
    from latent_critic.core.data.distortions import KINDS, distort
    from latent_critic.core.images import load_image
    from latent_critic.core.methods.native_size import to_native

    module, path, settings = genziqa.genziqa_latents, rated.images[0].path, request_for().settings
    whole, harmed = module.Latents(backbone, settings).of([module.Wanted(path), module.Wanted(path, False, "jpeg", 4)])
    image = distort(load_image(path), "jpeg", 4)
    expected = backbone.encode(to_native(image, settings.shape(*image.shape[1:], backbone.family))[None])[0]
    torch.testing.assert_close(harmed, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(harmed, whole, atol=1e-2)
    plain = {kind: module.Wanted(path, False, kind, 3).load() for kind in KINDS}
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(module.Wanted(path, False, kind, 3).load(), image) for kind, image in plain.items())


def test_no_group_lies_in_two_parts(genziqa, request_for):
    (part,) = genziqa.genziqa_data.split(request_for())
    train, held, unseen = ({image.group for image in side} for side in (part.train, part.held, part.unseen))
    assert not train & held | train & unseen | held & unseen
    assert len(part.train) + len(part.held) + len(part.unseen) == 40
    assert len(part.held) > 2 < len(part.unseen)


def test_like_contents_lie_in_one_part(genziqa, request_for, rated, tmp_path):
    """Pictures without groups, each of them three times under other names: no copy lies in another part."""
    images = []
    for place, image in enumerate(rated.images[:20]):
        for copy in range(3):
            path = tmp_path / f"{place}_{copy}.png"
            path.write_bytes(image.path.read_bytes())
            images.append(replace(image, path=path, group=path.stem))
    request = request_for(data=(RatedSet("copies", tuple(images)),), content=True)
    (part,) = genziqa.genziqa_data.split(request)
    sides = [{image.path.stem.split("_")[0] for image in side} for side in (part.train, part.held, part.unseen)]
    assert sum(map(len, sides)) == 20
    assert len(list(request.run.glob("contents-*.json"))) == 1
    assert genziqa.genziqa_data.split(request) == [part]


def test_the_first_pictures_of_a_sorted_list_are_not_its_worst(genziqa, request_for, rated):
    images = tuple(replace(rated.images[0], mos=float(i), group=str(i)) for i in range(400))
    request = request_for(data=(RatedSet("sorted", images),))
    (part,) = genziqa.genziqa_data.split(request)
    assert genziqa.genziqa_data.split(request) == [part]
    every = (part.train, part.held, part.unseen)
    assert sorted(image.mos for side in every for image in side) == [float(i) for i in range(400)]
    for side in every:
        first = [image.mos for image in side[:60]]
        assert abs(sum(first) / 60 - 200) < 60
        assert min(first) < 60
        assert max(first) > 340


def test_steps_are_drawn_by_their_number(genziqa, request_for):
    data = genziqa.genziqa_data
    request = request_for(one_level=True)
    parts = data.split(request)
    assert data.draw(parts, request, 3) == data.draw(parts, request, 3)
    assert data.draw(parts, request, 3) != data.draw(parts, request, 4)
    _, drawn = data.draw(parts, request, 3)
    assert len({one.timestep for one in drawn}) == 1
    assert len({one.noise for one in drawn}) == len({one.image.path for one in drawn}) == 4
    levels = {one.timestep for step in range(40) for one in data.draw(parts, request_for(), step)[1]}
    assert levels <= set(range(100))
    assert len(levels) > 40
    assert {one.timestep for one in data.draw(parts, request_for(levels=(7,)), 0)[1]} == {7}


def test_ladders_follow_the_pictures(genziqa, request_for):
    data = genziqa.genziqa_data
    plain, request = request_for(), request_for(ladders=3)
    parts = data.split(request)
    seen = set()
    for step in range(30):
        place, drawn = data.draw(parts, request, step)
        assert (place, drawn[:4]) == data.draw(parts, plain, step)
        assert len(drawn) == 10
        for less, more in zip(drawn[4::2], drawn[5::2], strict=True):
            assert 0 <= less.severity < more.severity <= 5
            assert replace(less, severity=more.severity) == more
            seen.add(less.kind)
    assert seen == set(request.ladder_kinds)


def test_ladders_teach_that_damage_is_worse(genziqa, backbone, request_for):
    """The rating of these pictures is their contrast; ladders of contrast alone say so too, without ratings' help."""
    request = request_for(
        steps=30, ladders=4, ladder_kinds=("contrast",), levels=(33,), ladder_weight=5.0, validate_every=100
    )
    run = genziqa.genziqa._Run(request, backbone, None, genziqa.genziqa_world.Alone())
    run.begin()
    losses = [run.one_step() for _ in range(30)]
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])


def test_a_resumed_run_equals_an_uninterrupted_one(genziqa, backbone, request_for):
    for steps in (2, 4):
        genziqa.genziqa.train_genziqa(request_for("pieces", steps=steps), backbone)
    genziqa.genziqa.train_genziqa(request_for("whole", steps=4), backbone)
    pieces, whole = (load_file(request_for(name).run / "state.safetensors") for name in ("pieces", "whole"))
    assert pieces.keys() == whole.keys()
    assert any(name.startswith("adam/exp_avg_sq/") for name in whole)
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name], rtol=1e-5, atol=ROUNDING)


def test_a_killed_run_goes_on_from_its_last_save(genziqa, backbone, request_for):
    def kill(what, done, total, figures):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        genziqa.genziqa.train_genziqa(request_for("run", save_minutes=0.0), backbone, kill)
    seen = []
    result = genziqa.genziqa.train_genziqa(
        request_for("run", save_minutes=5.0), backbone, lambda what, done, total, figures: seen.append(done)
    )
    assert seen == [3, 4]
    assert result.step == 4
    genziqa.genziqa.train_genziqa(request_for("whole"), backbone)
    killed, whole = (load_file(request_for(name).run / "state.safetensors") for name in ("run", "whole"))
    for name in whole:
        torch.testing.assert_close(killed[name], whole[name], rtol=1e-5, atol=ROUNDING)


def test_minutes_stop_it_saved_and_without_a_head(genziqa, backbone, request_for):
    result = genziqa.genziqa.train_genziqa(request_for(minutes=0.0), backbone)
    assert (result.head, result.step) == (None, 0)
    assert not request_for().out.exists()
    assert genziqa.genziqa.train_genziqa(request_for(), backbone).head is not None


def test_a_state_of_another_request_is_refused(genziqa, backbone, request_for):
    genziqa.genziqa.train_genziqa(request_for(minutes=0.0), backbone)
    with pytest.raises(BadInput, match="the same request"):
        genziqa.genziqa.train_genziqa(request_for(seed=1), backbone)


def test_a_state_of_another_split_or_model_is_refused(genziqa, backbone, request_for, rated):
    request = request_for(minutes=0.0)
    genziqa.genziqa.train_genziqa(request, backbone)
    joined = RatedSet(rated.name, tuple(replace(one, group=str(i // 10)) for i, one in enumerate(rated.images)))
    assert request_for(data=(joined,)).digest() == request.digest()
    with pytest.raises(BadInput, match="the same split"):
        genziqa.genziqa.train_genziqa(request_for(data=(joined,)), backbone)
    run = genziqa.genziqa._Run(request, backbone, None, genziqa.genziqa_world.Alone())
    told = backbone.fingerprint
    run.backbone = SimpleNamespace(fingerprint=replace(told, sketch=tuple(-value for value in told.sketch)))
    with pytest.raises(BadInput, match="the same model"):
        run.begin()


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


def test_two_processes_step_like_one(genziqa, backbone, request_for):
    """Each takes every second row of five pictures and two ladders; loss and mean gradient are the whole batch's."""
    board = {}

    class Half(genziqa.genziqa_world.Alone):
        size = 2

        def __init__(self, rank):
            self.rank = rank

        def whole(self, mine, count):
            board[self.rank] = mine.detach()
            found = torch.zeros(count)
            for rank, values in board.items():
                found[rank::2] = values
            found[self.rank :: 2] = mine
            return found

    changes = {"batch": 5, "ladders": 2, "losses": LossWeights(1.0, 2.0, 3.0)}
    worlds = [genziqa.genziqa_world.Alone(), Half(0), Half(1)]
    runs = [
        genziqa.genziqa._Run(request_for(f"run {place}", **changes), backbone, None, world)
        for place, world in enumerate(worlds)
    ]
    gradients, losses = {}, {}
    for place in (0, 1, 2, 1):  # the first half once more: now it knows the second's scores
        run = runs[place]
        run.begin()
        run.state.step = 0
        run.adaptation.zero_grad()
        run._apply = lambda parameters, at=place: gradients.update({at: [each.grad.clone() for each in parameters]})
        losses[place] = run.one_step()
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)
    for whole, first, second in zip(gradients[0], gradients[1], gradients[2], strict=True):
        assert float(((first + second) / 2 - whole).norm()) <= 1e-3 * float(whole.norm())


def test_a_step_with_an_infinite_gradient_is_skipped(genziqa, backbone, request_for, caplog):
    run = genziqa.genziqa._Run(request_for(), backbone, None, genziqa.genziqa_world.Alone())
    run.begin()
    before = [value.clone() for value in run.adaptation.parameters()]
    parameters = list(run.adaptation.parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, math.inf)
    run._apply(parameters)
    assert "not finite" in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(before, run.adaptation.parameters(), strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"data": ()}, {"steps": 0}, {"batch": 1}, {"rate": -1.0}, {"precision": "fp8"}, {"levels": (1000,)},
        {"limit": 1}, {"validate_levels": ()}, {"ladders": -1}, {"ladder_kinds": ("rust",)}, {"ladder_weight": 0.0},
    ],
    ids=repr,
)  # fmt: skip
def test_bad_requests(request_for, changes):
    with pytest.raises(BadInput, match="Expected"):
        request_for(**changes)


def test_nothing_to_train_and_too_few_pictures(genziqa, backbone, request_for, rated):
    with pytest.raises(BadInput, match="context or a LoRA"):
        genziqa.genziqa.train_genziqa(request_for(context=0, rank=0), backbone)
    few = RatedSet("few", rated.images[:2])
    with pytest.raises(BadInput, match="Expected"):
        genziqa.genziqa.train_genziqa(request_for(data=(few,)), backbone)
    alike = RatedSet("alike", tuple(replace(image, mos=50.0) for image in rated.images))
    with pytest.raises(BadInput, match="different ratings"):
        genziqa.genziqa.train_genziqa(request_for(data=(alike,)), backbone)


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


def test_accelerates_world_of_one_changes_no_gradient(genziqa):
    world = genziqa.genziqa_world.Accelerated()
    assert (world.rank, world.size, world.main) == (0, 1, True)
    parameter, unused = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, -2.0, 3.0])
    world.mean_gradients([parameter, unused])
    assert parameter.grad.tolist() == [1.0, -2.0, 3.0]
    assert unused.grad.tolist() == [0.0, 0.0]
    mine = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    world.whole(mine, 3).square().sum().backward()
    assert mine.grad.tolist() == [2.0, 4.0, 6.0]
