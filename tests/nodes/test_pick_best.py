import pytest
import torch

pytestmark = pytest.mark.host
PICK = "LatentCriticPickBest"


def test_the_best_comes_out_of_a_batch_as_a_batch(run_node, pictures, scorer):
    images = pictures([0.2, 0.8, 0.5])
    run = run_node(PICK, {"keep": 1}, images=[images], scorer=[scorer()])
    assert run.success, run.error
    (best,), (rest,) = run.kept["best"], run.kept["rest"]
    assert torch.equal(best, images[1:2])
    assert torch.equal(rest, images[[2, 0]])
    assert run.kept["best_index"] == [1]
    assert run.kept["best_score"] == [pytest.approx(80, abs=1e-3)]


def test_kept_images_come_best_first_with_what_belongs_to_them(run_node, pictures, scorer):
    latents = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 4, 2, 2)
    run = run_node(
        PICK,
        {"keep": 2},
        images=[pictures([0.2, 0.8, 0.5])],
        scorer=[scorer()],
        latents=[{"samples": latents}],
        masks=[torch.arange(3.0).reshape(3, 1, 1).expand(3, 8, 8)],
        prompts=["a", "b", "c"],
        seeds=[11, 22, 33],
    )
    assert run.success, run.error
    (best,), (rest,) = run.kept["best_latents"], run.kept["rest_latents"]
    assert best["samples"][:, 0, 0, 0].tolist() == [1, 2]
    assert best["batch_index"] == [1, 2]
    assert rest["samples"][:, 0, 0, 0].tolist() == [0]
    assert run.kept["best_masks"][0][:, 0, 0].tolist() == [1, 2]
    assert run.kept["best_prompts"] == ["b", "c"]
    assert [row["seed"] for row in run.ui["scores"]] == [22, 33, 11]


def test_images_of_different_sizes_arrive_as_a_list_and_leave_as_one(run_node, pictures, scorer):
    images = [pictures([0.3]), pictures([0.9], 20, 64), pictures([0.6], 48, 16)]
    run = run_node(PICK, {"keep": 2}, images=images, scorer=[scorer()])
    assert run.success, run.error
    assert [tuple(image.shape) for image in run.kept["best"]] == [(1, 20, 64, 3), (1, 48, 16, 3)]
    assert [tuple(image.shape) for image in run.kept["rest"]] == [(1, 32, 40, 3)]


def test_one_image_is_its_own_best_and_the_branch_of_the_rest_ends_quietly(run_node, pictures, scorer):
    run = run_node(PICK, {"keep": 1}, images=[pictures([0.4])], scorer=[scorer()])
    assert run.success, run.error
    assert run.kept["best"][0].shape[0] == 1
    assert "rest" not in run.kept
    assert "rest" not in run.blocked
    assert "no latents are connected" in run.blocked["best_latents"]


def test_a_nan_image_never_passes_and_the_others_are_scored(run_node, pictures, scorer):
    run = run_node(PICK, {"keep": 4}, images=[pictures([0.2, None, 0.5])], scorer=[scorer()])
    assert run.success, run.error
    assert run.kept["best"][0].shape[0] == 2
    assert run.kept["rest"][0].isnan().all()
    assert "NaN" in run.ui["scores"][-1]["reason"]
    assert [row["index"] for row in run.ui["scores"]] == [2, 0, 1]


def test_when_no_image_has_a_score_the_best_is_blocked_and_the_rest_goes_on(run_node, pictures, scorer):
    run = run_node(PICK, {"keep": 1}, images=[pictures([None, None])], scorer=[scorer()])
    assert run.success, run.error
    assert "best" not in run.kept
    assert "best_score" not in run.kept
    assert "NaN" in run.blocked["best"]
    assert run.kept["rest"][0].shape[0] == 2


def test_scores_reach_the_history_with_thumbnails_and_the_report(run_node, pictures, scorer, comfyui_base):
    run = run_node(PICK, {"keep": 1}, images=[pictures([0.2, 0.8, None])], scorer=[scorer()])
    assert len(run.ui["images"]) == 3
    for shown in run.ui["images"]:
        assert shown["type"] == "temp"
        assert (comfyui_base / "temp" / shown["subfolder"] / shown["filename"]).stat().st_size > 0
    assert run.ui["spec"][0]["name"] == "brightness"
    assert run.ui["text"][0] == run.kept["report"][0]
    assert "3 images scored, 1 kept, 2 rejected" in run.kept["report"][0]
    assert [row["kept"] for row in run.ui["scores"]] == [True, False, False]


def test_with_nothing_connected_the_built_in_judge_decides_and_says_so(run_workflow):
    graph = {
        "1": {
            "class_type": "TestNoisePictures",
            "inputs": {"count": 3, "width": 96, "height": 80, "seed": 3, "nan": 1},
        },
        "2": {"class_type": PICK, "inputs": {"images": ["1", 0], "keep": 1}},
    }
    run = run_workflow(graph)
    assert run.success, run.error
    shown = run.outputs["2"]
    assert shown["spec"][0]["name"] == "judge"
    assert "built-in judge" in shown["hint"][0]
    assert shown["hint"][0] in shown["text"][0]
    assert [row["index"] for row in shown["scores"]][-1] == 1


def test_given_scores_are_used_as_they_are(run_node, pictures, scorer):
    images, judge = pictures([0.2, 0.8]), scorer()
    flipped = judge.score(list(images.flip(0).movedim(-1, 1)))
    run = run_node(PICK, {"keep": 1}, images=[images], scores=[flipped])
    assert torch.equal(run.kept["best"][0], images[:1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompts": ["a", "b"]}, "Expected 3 prompts"),
        ({"seeds": [1, 2]}, "Expected 3 seeds"),
        ({"latents": [{"samples": torch.zeros(2, 4, 2, 2)}]}, "Expected 3 latents"),
        ({"masks": [torch.zeros(2, 8, 8)]}, "Expected 3 masks"),
        ({"scorer": ["judge"]}, "LC_SCORER"),
        ({"scorer": [], "scores": ["no"]}, "LC_SCORES"),
        ({"latents": [torch.zeros(3, 4, 2, 2)]}, "Expected a LATENT"),
    ],
)
def test_wrong_companions_are_refused_before_anything_is_scored(run_node, pictures, scorer, wrong, message):
    judge = scorer()
    run = run_node(PICK, {"keep": 1}, **{"images": [pictures([0.1, 0.2, 0.3])], "scorer": [judge], **wrong})
    assert not run.success
    assert message in run.error
    assert judge.calls == []


def test_scores_of_another_number_of_images_are_refused(run_node, pictures, scorer):
    other = scorer().score(list(pictures([0.2, 0.8]).movedim(-1, 1)))
    run = run_node(PICK, {"keep": 1}, images=[pictures([0.1, 0.2, 0.3])], scores=[other])
    assert "Expected 3 scores, one per image; got 2" in run.error
    run = run_node(PICK, {"keep": 1}, images=[pictures([0.1, 0.2])], scores=[other], scorer=[scorer()])
    assert "got both" in run.error


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "at least one image"),
        ([torch.zeros(0, 8, 8, 3)], "at least one image"),
        ([torch.zeros(8, 8, 3)], "an IMAGE"),
        ([torch.zeros(1, 3, 8, 8)], "last dimension"),
        ([torch.zeros(1, 0, 8, 3)], "last dimension"),
        (["picture"], "an IMAGE"),
    ],
)
def test_what_is_no_image_is_refused(run_node, scorer, images, message):
    run = run_node(PICK, {"keep": 1}, images=images, scorer=[scorer()])
    assert not run.success
    assert message in run.error


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 64, 1024, 3), (1, 64, 64, 1), (1, 64, 64, 4), (1, 8000, 64, 3)])
def test_odd_images_pass_or_get_a_reason(run_node, shape):
    generator = torch.Generator().manual_seed(1)
    run = run_node(PICK, {"keep": 1}, images=[torch.rand(shape, generator=generator), torch.rand(1, 64, 64, 3)])
    assert run.success, run.error
    row = next(row for row in run.ui["scores"] if row["index"] == 0)
    assert (row["score"] is None) == (shape == (1, 1, 1, 3))
    assert row["score"] is not None or "1×1" in row["reason"]


def test_a_score_does_not_depend_on_its_batch_mates(run_node, pictures):
    images = pictures([0.2, 0.8, 0.5], 64, 64)
    together = run_node(PICK, {"keep": 1}, images=[images]).ui["scores"]
    for row in together:
        (alone,) = run_node(PICK, {"keep": 1}, images=[images[row["index"]][None]]).ui["scores"]
        assert alone["score"] == pytest.approx(row["score"], abs=1e-2)


def test_what_belongs_to_single_images_comes_out_single(run_node, pictures, scorer):
    """ComfyUI pairs the items of lists: two images with one batch of latents would not go together."""
    run = run_node(
        PICK,
        {"keep": 2},
        images=[pictures([0.1]), pictures([0.9]), pictures([0.5])],
        scorer=[scorer()],
        latents=[{"samples": torch.arange(3.0).reshape(3, 1, 1, 1), "noise_mask": torch.ones(1, 1, 8, 8)}],
        masks=[torch.arange(3.0).reshape(3, 1, 1).expand(3, 8, 8)],
    )
    assert run.success, run.error
    assert [len(image) for image in run.kept["best"]] == [1, 1]
    assert [latent["samples"].tolist() for latent in run.kept["best_latents"]] == [[[[[1.0]]]], [[[[2.0]]]]]
    assert [latent["batch_index"] for latent in run.kept["best_latents"]] == [[1], [2]]
    assert [mask[:, 0, 0].tolist() for mask in run.kept["best_masks"]] == [[1], [2]]


def test_what_belongs_to_a_batch_comes_out_as_a_batch(run_node, pictures, scorer):
    mask = torch.ones(1, 1, 8, 8)
    latents = [{"samples": torch.full((1, 4, 2, 2), float(i)), "noise_mask": i * mask, "type": "x"} for i in range(3)]
    masks = [torch.full((1, 8, 8), float(i)) for i in range(3)]
    given = {"images": [pictures([0.1, 0.9, 0.5])], "masks": masks}
    run = run_node(PICK, {"keep": 2}, scorer=[scorer()], latents=latents, **given)
    assert run.success, run.error
    (latent,), (kept,) = run.kept["best_latents"], run.kept["best_masks"]
    assert latent["samples"][:, 0, 0, 0].tolist() == [1, 2]
    assert latent["noise_mask"][:, 0, 0, 0].tolist() == [1, 2]
    assert latent["batch_index"] == [0, 0]  # each was the first of its own batch
    assert latent["type"] == "x"
    assert kept[:, 0, 0].tolist() == [1, 2]
    uneven = [*latents[:2], {"samples": torch.zeros(1, 4, 3, 3)}]
    run = run_node(PICK, {"keep": 2}, scorer=[scorer()], latents=uneven, **given)
    assert [tuple(latent["samples"].shape) for latent in run.kept["best_latents"]] == [(1, 4, 2, 2), (1, 4, 3, 3)]


def test_keep_0_and_a_short_batch_index_are_refused_before_scoring(run_node, pictures, scorer):
    judge = scorer()
    given = {"images": [pictures([0.1, 0.9, 0.5])], "scorer": [judge]}
    run = run_node(PICK, keep=[0], **given)
    assert "Expected keep of at least 1; got 0." in run.error
    short = {"samples": torch.zeros(3, 4, 2, 2), "batch_index": [5]}
    run = run_node(PICK, {"keep": 1}, latents=[short], **given)
    assert "a batch_index with 3 places; got 1" in run.error
    assert judge.calls == []
