"""Quality Heat Map in the real executor: the built-in judge without a checkpoint, and every bad input."""

import pytest
import torch

pytestmark = pytest.mark.host
WIDGETS = {"worst_share": 0.1, "opacity": 0.6, "cells": 20}


@pytest.fixture
def photograph():
    """A sharp picture [1, H, W, 3] whose right lower quadrant is blurred."""
    from skimage import data

    image = torch.from_numpy(data.astronaut().copy()).float().div(255)[None, :, :384]
    low = torch.nn.functional.interpolate(image[:, 256:, 192:].movedim(-1, 1), scale_factor=0.1, mode="area")
    blurred = image.clone()
    blurred[:, 256:, 192:] = torch.nn.functional.interpolate(low, (256, 192), mode="bicubic").movedim(1, -1).clamp(0, 1)
    return image, blurred


def test_one_node_and_images_are_enough(run_node, photograph, pack):
    clean, blurred = photograph
    run = run_node("LatentCriticHeatMap", WIDGETS, images=[torch.cat([clean, blurred])])
    assert run.success, run.error
    judge = pack("nodes._judge").builtin_judge()
    expected = judge.score([clean[0].movedim(-1, 0), blurred[0].movedim(-1, 0)]).values()
    assert run.kept["scores"] == pytest.approx(expected, abs=0.05)
    assert [mask.shape for mask in run.kept["maps"]] == [(1, 512, 384)] * 2
    (left, top), (width, height) = (
        [run.kept[name][1] for name in pair] for pair in (("left", "top"), ("width", "height"))
    )
    assert left + width / 2 > 192
    assert top + height / 2 > 256
    assert run.kept["worst_places"][1].shape == (1, height, width, 3)
    assert torch.equal(run.kept["worst_places"][1], blurred[:, top : top + height, left : left + width])
    change = (run.kept["maps"][1] - run.kept["maps"][0])[0]
    assert float(change[256:, 192:].mean()) > max(float(change[:256].mean()), float(change[256:, :192].mean())) + 0.05
    overlay = run.kept["overlays"][0]
    assert overlay.shape[2:] == (384, 3)
    assert overlay.shape[1] > 512
    assert len(run.ui["images"]) == 2
    assert "Worst:" in run.kept["report"][0]


def test_images_of_any_sizes_and_channels(run_node):
    images = [torch.rand(1, 64, 90, 3), torch.rand(1, 300, 270, 4), torch.rand(1, 128, 128, 1)]
    run = run_node("LatentCriticHeatMap", WIDGETS, images=images)
    assert run.success, run.error
    assert [tuple(mask.shape[1:]) for mask in run.kept["maps"]] == [(64, 90), (300, 270), (128, 128)]
    assert all(0 <= float(mask.min()) <= float(mask.max()) <= 1 for mask in run.kept["maps"])


def test_an_image_without_a_score_is_blocked_and_the_others_are_not(run_node):
    images = [torch.rand(1, 64, 64, 3), torch.full((1, 64, 64, 3), float("nan"))]
    run = run_node("LatentCriticHeatMap", WIDGETS, images=images)
    assert run.success, run.error
    assert len(run.kept["maps"]) == 1
    assert "no map" in run.kept["report"][0]
    assert "NaN" in run.blocked["maps"]


def test_a_scorer_without_maps_is_one_clear_error(run_node, scorer):
    run = run_node("LatentCriticHeatMap", WIDGETS, images=[torch.rand(1, 64, 64, 3)], scorer=[scorer()])
    assert not run.success
    assert "a scorer that knows maps" in run.error
    assert "brightness" in run.error


def test_the_quality_judge_node_is_a_scorer_of_maps(run_node, pack, comfyui):
    judge = comfyui.NODE_CLASS_MAPPINGS["LatentCriticQualityJudge"].execute().result[0]
    run = run_node("LatentCriticHeatMap", {**WIDGETS, "cells": 4}, images=[torch.rand(1, 64, 64, 3)], scorer=[judge])
    assert run.success, run.error
