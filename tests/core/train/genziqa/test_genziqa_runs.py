"""Runs of GenzIQA's training: resumed, killed, refused, shared by processes."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from latent_critic.core.data.rated import RatedSet
from latent_critic.core.errors import BadInput
from latent_critic.core.train.genziqa_losses import LossWeights
from safetensors.torch import load_file

#: Pictures are encoded in other company after a resumption; a step moves a weight by a hundredth.
ROUNDING = 1e-5


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
