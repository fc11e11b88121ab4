import pytest
import torch

pytestmark = pytest.mark.host
REJECT = "LatentCriticReject"
OFF = {"threshold": -1.0, "top_k": 0, "percentile": 0.0, "floor": 0, "cap": 0}
LEVELS = [0.2, 0.8, None, 0.5, 0.9]


def rules(**on):
    return {**OFF, **on}


def test_everything_is_filtered_together_and_keeps_its_index(run_node, pictures, scorer):
    images = pictures(LEVELS)
    latents = {
        "samples": torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 4, 2, 2),
        "noise_mask": torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 1, 16, 16),
        "batch_index": [10, 11, 12, 13, 14],
        "type": "audio",
    }
    run = run_node(
        REJECT,
        rules(threshold=60),
        images=[images],
        scorer=[scorer()],
        latents=[latents],
        masks=[torch.arange(5.0).reshape(5, 1, 1).expand(5, 8, 8)],
        prompts=list("abcde"),
    )
    assert run.success, run.error
    for side, places in (("kept", [1, 4]), ("rejected", [0, 2, 3])):
        (found,), (latent,), (mask,) = (
            run.kept[f"{side}_images"],
            run.kept[f"{side}_latents"],
            run.kept[f"{side}_masks"],
        )
        assert torch.equal(found.nan_to_num(), images[places].nan_to_num())
        assert latent["samples"][:, 0, 0, 0].tolist() == places
        assert latent["noise_mask"][:, 0, 0, 0].tolist() == places
        assert latent["batch_index"] == [10 + place for place in places]
        assert latent["type"] == "audio"
        assert mask[:, 0, 0].tolist() == places
        assert run.kept[f"{side}_prompts"] == ["abcde"[place] for place in places]
        assert [score.index for score in run.kept[f"{side}_scores"][0]] == places
        assert run.kept[f"{side}_index"] == places
    assert run.kept["kept_count"] == [2]
    assert run.kept["any_kept"] == [True]


def test_lists_stay_lists(run_node, pictures, scorer):
    images = [pictures([0.3]), pictures([0.9], 20, 64), pictures([0.6], 48, 16)]
    latents = [{"samples": torch.full((1, 4, 2, 2), float(i))} for i in range(3)]
    run = run_node(REJECT, rules(top_k=2), images=images, scorer=[scorer()], latents=latents, prompts=["all"])
    assert [tuple(image.shape[1:3]) for image in run.kept["kept_images"]] == [(20, 64), (48, 16)]
    assert [float(latent["samples"].mean()) for latent in run.kept["kept_latents"]] == [1, 2]
    assert run.kept["kept_prompts"] == ["all"]


@pytest.mark.parametrize(
    ("on", "kept"),
    [
        ({}, [0, 1, 3, 4]),
        ({"threshold": 60.0}, [1, 4]),
        ({"top_k": 3}, [1, 3, 4]),
        ({"percentile": 75.0}, [4]),
        ({"cap": 2}, [1, 4]),
        ({"threshold": 99.0, "floor": 1}, [4]),
        ({"threshold": 40.0, "top_k": 3, "percentile": 50.0, "floor": 1, "cap": 1}, [4]),
        ({"threshold": 99.0, "floor": 9}, [0, 1, 3, 4]),
    ],
)
def test_rules(run_node, pictures, scorer, on, kept):
    run = run_node(REJECT, rules(**on), images=[pictures(LEVELS)], scorer=[scorer()])
    assert run.success, run.error
    assert run.kept["kept_index"] == kept
    reasons = {row["index"]: row["reason"] for row in run.ui["scores"]}
    assert reasons[2].startswith("not scored: the image holds NaN")


def test_an_empty_kept_side_is_blocked_with_the_reason_and_the_rest_goes_on(run_node, pictures, scorer):
    run = run_node(REJECT, rules(threshold=95.0), images=[pictures([0.2, 0.8])], scorer=[scorer()])
    assert run.success, run.error
    assert "kept_images" not in run.kept
    assert "80.0 < threshold 95" in run.blocked["kept_images"]
    assert "floor" in run.blocked["kept_images"]
    assert run.kept["rejected_images"][0].shape[0] == 2
    assert run.kept["kept_count"] == [0]
    assert run.kept["any_kept"] == [False]
    assert "0 kept, 2 rejected" in run.kept["report"][0]


def test_when_nothing_is_rejected_that_side_ends_quietly(run_node, pictures, scorer):
    run = run_node(REJECT, rules(), images=[pictures([0.2, 0.8])], scorer=[scorer()])
    assert run.success, run.error
    for output in ("rejected_images", "rejected_scores", "rejected_index"):
        assert output not in run.kept
        assert output not in run.blocked  # no error window where nothing is wrong
    assert set(run.kept) >= {"kept_images", "kept_scores", "kept_index"}


def test_an_uncalibrated_score_refuses_a_threshold_and_says_what_to_do(run_node, pictures, scorer):
    loose = scorer(calibrated_on=None)
    run = run_node(REJECT, rules(threshold=50.0), images=[pictures([0.2, 0.8])], scorer=[loose])
    assert not run.success
    assert "UncalibratedThreshold" in run.error
    assert "Set the threshold to -1" in run.error
    assert "top k or percentile" in run.error
    assert loose.calls == []  # refused before any image was scored
    assert run_node(REJECT, rules(top_k=1), images=[pictures([0.2, 0.8])], scorer=[loose]).kept["kept_index"] == [1]


def test_lower_is_better(run_node, pictures, scorer):
    run = run_node(REJECT, rules(threshold=50.0), images=[pictures([0.2, 0.8])], scorer=[scorer(direction="lower")])
    assert run.kept["kept_index"] == [0]


def test_a_threshold_out_of_range_is_refused(run_node, pictures, scorer):
    run = run_node(REJECT, rules(threshold=120.0), images=[pictures([0.2])], scorer=[scorer()])
    assert not run.success  # by the widget's own range
    run = run_node(REJECT, OFF, images=[pictures([0.2])], scorer=[scorer()], threshold=[120.0])
    assert "a threshold from 0 to 100; got 120" in run.error  # through a link, which has no range
    judge = scorer()
    run = run_node(REJECT, OFF, images=[pictures([0.2])], scorer=[judge], threshold=[-20.0])
    assert "a threshold from 0 to 100; got -20" in run.error  # only -1 switches it off
    assert judge.calls == []


def test_a_cap_below_the_floor_is_refused(run_node, pictures, scorer):
    run = run_node(REJECT, rules(floor=3, cap=2), images=[pictures([0.2])], scorer=[scorer()])
    assert "cap of at least 3" in run.error


def test_two_batches_in_a_list_are_split_and_indexed_as_one(run_node, pictures, scorer):
    images = [pictures([0.2, 0.8]), pictures([0.5, 0.9])]
    run = run_node(REJECT, rules(top_k=2), images=images, scorer=[scorer()])
    assert run.kept["kept_index"] == [1, 3]
    assert [tuple(image.shape) for image in run.kept["kept_images"]] == [(1, 32, 40, 3)] * 2
