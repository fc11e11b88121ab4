import pytest
import torch

pytestmark = pytest.mark.host
SHEET = "LatentCriticContactSheet"


def test_all_images_lie_on_one_picture_best_first(run_node, scorer):
    colours = torch.tensor([[0.0, 0.0, 0.6], [0.0, 1.0, 0.2], [0.9, 0.0, 0.0]])
    images = [colour.expand(1, 64, 64 + 8 * place, 3) for place, colour in enumerate(colours)]
    run = run_node(SHEET, {"best_first": True, "columns": 3, "cell": 96}, images=images, scorer=[scorer()])
    assert run.success, run.error
    (sheet,) = run.kept["sheet"]
    assert sheet.shape[0] == 1
    assert sheet.shape[3] == 3
    assert 0 <= sheet.min() <= sheet.max() <= 1
    across = [int((sheet[0] - colours[place]).abs().sum(-1).argmin() % sheet.shape[2]) for place in (1, 2, 0)]
    assert across == sorted(across)
    assert len(run.ui["images"]) == 1
    assert [score.index for score in run.kept["sheet_scores"][0]] == [0, 1, 2]


def test_the_order_of_the_batch_can_be_kept(run_node, scorer):
    colours = torch.tensor([[0.0, 0.0, 0.6], [0.0, 1.0, 0.2]])
    images = colours[:, None, None].expand(2, 64, 64, 3)
    run = run_node(SHEET, {"best_first": False, "columns": 2, "cell": 96}, images=[images], scorer=[scorer()])
    (sheet,) = run.kept["sheet"]
    across = [int((sheet[0] - colour).abs().sum(-1).argmin() % sheet.shape[2]) for colour in colours]
    assert across == sorted(across)


@pytest.mark.parametrize("count", [1, 7, 40])
def test_any_number_of_images_nan_included(run_node, pictures, scorer, count):
    images = pictures([None, *[0.5] * (count - 1)])
    run = run_node(SHEET, {"best_first": True, "columns": 0, "cell": 64}, images=[images], scorer=[scorer()])
    assert run.success, run.error
    assert torch.isfinite(run.kept["sheet"][0]).all()


def test_cells_shrink_where_the_sheet_would_get_too_large(run_node, pictures, scorer):
    images = pictures([0.2] * 120, 16, 16)
    widgets = {"best_first": True, "columns": 0, "cell": 1024}
    run = run_node(SHEET, widgets, images=[images], scorer=[scorer()])
    assert run.success, run.error
    height, width = run.kept["sheet"][0].shape[1:3]
    assert 60_000_000 < height * width <= 89_000_000
    assert "pixels instead of 1024" in run.ui["text"][0]
    small = run_node(SHEET, {**widgets, "cell": 64}, images=[images[:3]], scorer=[scorer()])
    assert "instead of" not in small.ui["text"][0]


def test_too_many_images_are_refused_before_any_is_scored(run_node, scorer):
    judge = scorer()
    images = torch.zeros(1, 1, 1, 3).expand(40_000, 1, 1, 3)
    run = run_node(SHEET, {"best_first": True, "columns": 0, "cell": 64}, images=[images], scorer=[judge])
    assert "Put fewer on one contact sheet" in run.error
    assert judge.calls == []
