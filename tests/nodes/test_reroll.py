"""Reroll Until Good in the real executor: what is sampled, what comes out, and what is sampled again."""

import copy
import gc
import json
import time

import pytest
import torch

pytestmark = pytest.mark.host
#: KSampler's inputs that every test shares.
SAMPLING = {"steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
OPEN = {
    "seed": 40,
    "threshold": -1.0,
    "max_attempts": 3,
    "stop_at_first_good": True,
    "seed_mode": "increment",
    "seed_list": "",
    "max_calls": 0,
    "max_seconds": 0.0,
}


@pytest.fixture
def sampled(comfyui, monkeypatch):
    """The seed of every KSampler that really runs."""
    seeds = []
    plain = comfyui.KSampler.sample

    def sample(self, model, seed, *arguments, **named):
        seeds.append(seed)
        return plain(self, model, seed, *arguments, **named)

    monkeypatch.setattr(comfyui.KSampler, "sample", sample)
    return seeds


@pytest.fixture
def graph(comfyui, pack, scorers):
    """Builds a prompt around the node; `score_with` is what decides, the brightness of the image by default."""
    pack()
    names = [output.id for output in comfyui.NODE_CLASS_MAPPINGS["LatentCriticReroll"].GET_SCHEMA().outputs]

    def build(judge=True, batch=1, **widgets):
        prompt = {
            "1": {"class_type": "TestTinyCheckpoint", "inputs": {"family": "sd15", "seed": 0}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["1", 1]}},
            "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
            "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": batch}},
            "5": {"class_type": "TestScorerSource", "inputs": {"key": "it"}},
            "6": {
                "class_type": "LatentCriticReroll",
                "inputs": {
                    "model": ["1", 0],
                    "positive": ["2", 0],
                    "negative": ["3", 0],
                    "latent_image": ["4", 0],
                    "vae": ["1", 2],
                    **SAMPLING,
                    **OPEN,
                    **widgets,
                },
            },
        }
        if judge:
            prompt["6"]["inputs"]["scorer"] = ["5", 0]
        for place, name in enumerate(names):
            prompt[f"keep {name}"] = {"class_type": "TestKeep", "inputs": {"name": name, "value": ["6", place]}}
        return prompt

    return build


def log_of(run):
    return json.loads(run.kept["log_json"][0])


def scores_of(run):
    return [row["score"] for row in log_of(run)["attempts"]]


def test_the_whole_budget_and_the_best_of_it(run_workflow, graph, sampled):
    run = run_workflow(graph())
    assert run.success, run.error
    assert sampled == [40, 41, 42]
    log, scores = log_of(run), scores_of(run)
    assert [row["seed"] for row in log["attempts"]] == [40, 41, 42]
    assert [row["calls"] for row in log["attempts"]] == [2, 2, 2]
    assert run.kept["score"] == [max(scores)]
    assert run.kept["seed_used"] == [40 + scores.index(max(scores))]
    assert run.kept["passed"] == [True]
    assert len(run.kept["candidates"]) == 3
    best = run.kept["candidates"][scores.index(max(scores))]
    assert torch.equal(run.kept["image"][0], best)
    assert best.shape == (1, 64, 64, 3)
    assert 100 * float(best.mean()) == pytest.approx(max(scores), abs=1e-4)
    assert [score.seed for score in run.kept["scores"][0]] == [40, 41, 42]
    assert log["stopped"] == "the budget of 3 attempts is used up"


def test_what_comes_out_is_what_a_lone_ksampler_makes(run_workflow, graph, comfyui):
    prompt = graph(max_attempts=2)
    run = run_workflow(prompt)
    seed, latent = run.kept["seed_used"][0], run.kept["latent"][0]["samples"]
    noise = run.kept["noise"][0]["samples"]
    lone = {key: prompt[key] for key in "1234"}
    links = {name: prompt["6"]["inputs"][name] for name in ("model", "positive", "negative", "latent_image")}
    lone["7"] = {"class_type": "KSampler", "inputs": {**links, **SAMPLING, "seed": seed}}
    lone["8"] = {"class_type": "TestKeep", "inputs": {"name": "latent", "value": ["7", 0]}}
    assert torch.equal(run_workflow(lone).kept["latent"][0]["samples"], latent)
    from comfy.sample import prepare_noise

    assert torch.equal(noise, prepare_noise(torch.zeros(1, 4, 8, 8), seed))


def test_a_larger_budget_samples_only_the_new_ones_and_another_threshold_none(run_workflow, graph, sampled):
    first = run_workflow(graph(max_attempts=3))
    assert first.success, first.error
    scores = scores_of(first)
    sampled.clear()
    more = run_workflow(graph(max_attempts=4))
    assert more.success, more.error
    assert sampled == [43]
    assert scores_of(more)[:3] == scores
    sampled.clear()
    assert run_workflow(graph(max_attempts=2)).success
    other = run_workflow(graph(max_attempts=3, threshold=min(scores)))
    assert other.success, other.error
    assert sampled == []
    assert len(scores_of(other)) == 1
    assert [row["calls"] for row in log_of(more)["attempts"]] == [2] * 4


def test_another_scorer_samples_nothing(run_workflow, graph, sampled, scorer, scorers):
    assert run_workflow(graph()).success
    sampled.clear()
    scorers["other"] = scorer(name="other")
    prompt = graph()
    prompt["5"]["inputs"]["key"] = "other"
    run = run_workflow(prompt)
    assert run.success, run.error
    assert log_of(run)["spec"]["name"] == "other"
    assert sampled == []


@pytest.mark.parametrize("cache", ["LRU", "NONE"])
def test_every_attempt_is_sampled_once_whatever_comfyui_caches(run_workflow, graph, sampled, cache):
    import execution

    sizes = {"lru": 1, "ram": 0, "ram_inactive": 0}
    kind = getattr(execution.CacheType, cache)
    run_workflow.executor = execution.PromptExecutor(run_workflow.server, cache_type=kind, cache_args=sizes)
    run = run_workflow(graph(max_attempts=4))
    assert run.success, run.error
    assert sampled == [40, 41, 42, 43]
    assert len(run.kept["candidates"]) == 4


def test_stops_at_the_first_good_one(run_workflow, graph, sampled):
    scores = scores_of(run_workflow(graph(max_attempts=4)))
    bar = (min(scores) + max(scores)) / 2
    first_good = next(place for place, score in enumerate(scores) if score >= bar)
    sampled.clear()
    run = run_workflow(graph(max_attempts=4, threshold=bar, seed=40, steps=2))
    assert run.kept["passed"] == [True]
    assert run.kept["seed_used"] == [40 + first_good]
    assert f"attempt {first_good + 1} reached the threshold" in run.kept["log"][0]
    whole = run_workflow(graph(max_attempts=4, threshold=bar, stop_at_first_good=False))
    assert len(scores_of(whole)) == 4
    assert whole.kept["score"] == [max(scores)]
    assert sampled == []


def test_nothing_reaches_the_bar(run_workflow, graph, sampled):
    run = run_workflow(graph(threshold=100.0, max_attempts=2))
    assert run.success, run.error
    assert sampled == [40, 41]
    assert run.kept["passed"] == [False]
    assert run.kept["score"] == [max(scores_of(run))]
    assert "not passed, the best all the same" in run.kept["log"][0]


def test_seed_modes(run_workflow, graph, sampled):
    assert run_workflow(graph(seed_mode="list", seed_list="7, 3, 7")).success
    assert sampled == [7, 3]
    sampled.clear()
    assert run_workflow(graph(seed_mode="random")).success
    assert sampled[0] == 40
    assert len(set(sampled)) == 3


@pytest.mark.parametrize(
    ("sampler", "calls", "attempts"), [("euler", 4, 2), ("euler", 3, 1), ("heun", 4, 1), ("heun", 6, 2)]
)
def test_a_budget_of_denoiser_calls(run_workflow, graph, sampled, sampler, calls, attempts):
    run = run_workflow(graph(max_calls=calls, sampler_name=sampler))
    assert run.success, run.error
    assert len(sampled) == attempts
    assert log_of(run)["calls"] == attempts * (2 if sampler == "euler" else 3)
    assert "denoiser call" in log_of(run)["stopped"]


def test_a_budget_of_seconds(run_workflow, graph, sampled):
    run = run_workflow(graph(max_seconds=0.001))
    assert run.success, run.error
    assert sampled == [40]
    assert log_of(run)["attempts"][0]["seconds"] > 0


def test_one_attempt(run_workflow, graph, sampled):
    run = run_workflow(graph(max_attempts=1))
    assert run.success, run.error
    assert sampled == [40]
    assert len(run.kept["candidates"]) == 1


def test_a_batch_in_every_attempt(run_workflow, graph):
    run = run_workflow(graph(batch=2, max_attempts=2))
    assert run.success, run.error
    rows = log_of(run)["attempts"]
    assert [(row["attempt"], row["image"]) for row in rows] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    place = next(row["image"] for row in rows if row["best"])
    assert run.kept["latent"][0]["batch_index"] == [place]
    from comfy.sample import prepare_noise

    noise = prepare_noise(torch.zeros(2, 4, 8, 8), run.kept["seed_used"][0])
    assert torch.equal(run.kept["noise"][0]["samples"], noise[place : place + 1])


@pytest.mark.parametrize(
    ("widgets", "message"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"seed_mode": "list"}, "at least one seed in the list"),
        ({"seed_mode": "list", "seed_list": "7, cat"}, "'cat'"),
    ],
)
def test_bad_budgets_and_seeds_sample_nothing(run_workflow, graph, sampled, widgets, message):
    run = run_workflow(graph(**widgets))
    assert not run.success
    assert message in run.error
    assert sampled == []


def test_a_linked_budget_of_zero_is_refused(run_workflow, graph, sampled):
    prompt = graph()
    prompt["9"] = {"class_type": "PrimitiveInt", "inputs": {"value": 0}}
    prompt["6"]["inputs"]["max_attempts"] = ["9", 0]
    assert "a budget of at least 1 attempt" in run_workflow(prompt).error
    assert sampled == []


def test_a_threshold_on_an_uncalibrated_scorer_is_refused_before_sampling(
    run_workflow, graph, sampled, scorer, scorers
):
    scorers["it"] = scorer(calibrated_on=None)
    run = run_workflow(graph(threshold=50.0))
    assert not run.success
    assert "Switch the threshold off to use the whole budget and keep the best" in run.error
    assert sampled == []
    assert run_workflow(graph(threshold=-1.0)).success


def test_an_attempt_without_a_score_never_wins(run_workflow, graph, sampled, scorers):
    judge = scorers["it"]
    plain, seen = judge.images.reason_unscorable, []

    def broken_first(image):
        seen.append(image)
        return "broken" if len(seen) == 1 else plain(image)

    judge.images = type("images", (), {"as_list": judge.images.as_list, "reason_unscorable": broken_first})
    run = run_workflow(graph(max_attempts=2))
    assert run.success, run.error
    assert run.kept["seed_used"] == [41]
    assert [row["reason"] for row in log_of(run)["attempts"]] == ["broken", ""]


def test_when_no_attempt_has_a_score_the_images_are_blocked_and_the_log_is_not(run_workflow, graph, scorers):
    judge = scorers["it"]
    reason = staticmethod(lambda image: "broken decode")
    judge.images = type("images", (), {"as_list": judge.images.as_list, "reason_unscorable": reason})
    run = run_workflow(graph(max_attempts=2))
    assert set(run.kept) == {"passed", "scores", "candidates", "log", "log_json"}
    assert run.kept["passed"] == [False]
    blocked = [data["exception_message"] for event, data in run_workflow.server.sent if event == "execution_error"]
    assert len(blocked) == 5
    assert all("No image has a score. The first one: broken decode" in text for text in blocked)


def test_cancel_within_an_attempt_keeps_what_was_sampled(run_workflow, graph, comfyui, monkeypatch):
    from comfy import model_management

    seeds, plain = [], comfyui.KSampler.sample

    def sample(self, model, seed, *arguments, **named):
        seeds.append(seed)
        if seeds == [40, 41]:
            model_management.interrupt_current_processing(True)
        return plain(self, model, seed, *arguments, **named)

    monkeypatch.setattr(comfyui.KSampler, "sample", sample)
    try:
        run = run_workflow(graph())
    finally:
        model_management.interrupt_current_processing(False)
    assert not run.success
    assert [kind for kind, _ in run.messages if "interrupt" in kind or "error" in kind] == ["execution_interrupted"]
    assert not run.kept
    again = run_workflow(graph())
    assert again.success, again.error
    assert seeds == [40, 41, 41, 42]
    assert [row["calls"] for row in log_of(again)["attempts"]] == [2, 2, 2]


def test_a_run_that_is_wholly_cached_still_tells_its_scores(run_workflow, graph, sampled):
    prompt = graph(max_attempts=2)
    prompt["8"] = {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}}
    # ComfyUI 0.3.75 tells what a cached node showed only where the prompt came with a client's id.
    first, again = (run_workflow(copy.deepcopy(prompt), {"client_id": "a script"}) for _ in range(2))
    assert sampled == [40, 41]
    assert "6" in again.cached
    for run in (first, again):
        (told,) = json.loads(json.dumps(run.outputs["6"]))["reroll"]
        assert [row["score"] for row in told["log"]["attempts"]] == scores_of(first)
        assert told["scores"][0]["score"] == max(scores_of(first))
        assert told["spec"][0]["name"] == "brightness"
        assert len(told["images"]) == 2


def test_fifty_and_more_attempts_go_through_several_groups(run_workflow, graph, sampled):
    first = run_workflow(graph(max_attempts=52, steps=1))
    assert first.success, first.error
    assert sampled == list(range(40, 92))
    scores = scores_of(first)
    assert first.kept["seed_used"] == [40 + scores.index(max(scores))]
    sampled.clear()
    assert run_workflow(graph(max_attempts=3, steps=1)).success
    more = run_workflow(graph(max_attempts=54, steps=1))
    assert sampled == [92, 93]
    assert scores_of(more)[:52] == scores


def test_walking_over_cached_attempts_takes_time_in_proportion(run_workflow, graph, sampled):
    assert run_workflow(graph(max_attempts=100, steps=1)).success
    sampled.clear()
    seconds = []
    for attempts in (25, 99):
        began = time.process_time()  # other work on the machine does not count
        assert run_workflow(graph(max_attempts=attempts, steps=1)).success
        seconds.append(time.process_time() - began)
    assert sampled == []
    assert seconds[1] < 12 * seconds[0]


def test_without_candidates_everything_else_is_the_same(run_workflow, graph, sampled):
    plain = run_workflow(graph(batch=2))
    sampled.clear()
    run = run_workflow(graph(batch=2, keep_candidates=False))
    assert run.success, run.error
    assert sampled == [40, 41, 42]
    for name in ("image", "score", "seed_used", "passed"):
        assert torch.equal(torch.as_tensor(run.kept[name][0]), torch.as_tensor(plain.kept[name][0])), name
    for name in ("latent", "noise"):
        assert torch.equal(run.kept[name][0]["samples"], plain.kept[name][0]["samples"]), name
    assert run.kept["latent"][0]["batch_index"] == plain.kept["latent"][0]["batch_index"]
    assert scores_of(run) == scores_of(plain)
    assert [row["calls"] for row in log_of(run)["attempts"]] == [4] * 6  # 2 steps for each of 2 images
    assert len(run.kept["candidates"]) == 1
    assert torch.equal(run.kept["candidates"][0], plain.kept["image"][0])


def test_without_candidates_a_larger_budget_samples_only_the_new_ones(run_workflow, graph, sampled):
    first = run_workflow(graph(keep_candidates=False))
    scores = scores_of(first)
    sampled.clear()
    more = run_workflow(graph(keep_candidates=False, max_attempts=4))
    assert more.success, more.error
    assert sampled == [43]
    assert scores_of(more)[:3] == scores


def test_without_candidates_a_loser_that_becomes_the_best_is_sampled_again(run_workflow, graph, sampled):
    scores = scores_of(run_workflow(graph(max_attempts=2)))
    worst, best = (40 + scores.index(pick(scores)) for pick in (min, max))
    widgets = {"seed_mode": "list", "seed_list": f"{worst} {best}"}
    plain = run_workflow(graph(max_attempts=1, **widgets))
    assert run_workflow(graph(keep_candidates=False, **widgets)).kept["seed_used"] == [best]
    sampled.clear()
    run = run_workflow(graph(max_attempts=1, keep_candidates=False, **widgets))
    assert run.success, run.error
    assert sampled == [worst]
    assert run.kept["seed_used"] == [worst]
    assert torch.equal(run.kept["image"][0], plain.kept["image"][0])
    assert torch.equal(run.kept["latent"][0]["samples"], plain.kept["latent"][0]["samples"])


def test_without_candidates_and_without_a_score(run_workflow, graph, scorers):
    judge = scorers["it"]
    reason = staticmethod(lambda image: "broken decode")
    judge.images = type("images", (), {"as_list": judge.images.as_list, "reason_unscorable": reason})
    run = run_workflow(graph(max_attempts=2, keep_candidates=False))
    assert set(run.kept) == {"passed", "scores", "log", "log_json"}
    assert run.kept["passed"] == [False]


@pytest.mark.parametrize("keep", [True, False])
def test_a_list_of_latents_is_one_attempt_of_several_samplings(run_workflow, graph, sampled, comfyui, run_node, keep):
    latents = [{"samples": torch.full((count, 4, 8, 8), level)} for count, level in ((1, 0.0), (2, 0.5))]
    prompt = graph(max_attempts=2, keep_candidates=keep)
    prompt["9"] = {"class_type": "TestGive", "inputs": {"key": "latents"}}
    comfyui.NODE_CLASS_MAPPINGS["TestGive"].values["latents"] = latents
    prompt["6"]["inputs"]["latent_image"] = ["9", 0]
    run = run_workflow(prompt)
    assert run.success, run.error
    assert sampled == [40, 40, 41, 41]
    rows = log_of(run)["attempts"]
    assert [(row["seed"], row["image"]) for row in rows] == [(seed, image) for seed in (40, 41) for image in range(3)]
    assert log_of(run)["calls"] == 12  # 2 steps for each of 6 images
    assert len(run.kept["candidates"]) == (6 if keep else 1)
    (best,) = (row for row in rows if row["best"])
    assert run.kept["score"] == [best["score"]] == [max(row["score"] for row in rows)]
    which = 0 if best["image"] == 0 else 1
    links = {name: prompt["6"]["inputs"][name] for name in ("model", "positive", "negative", "latent_image")}
    lone = {key: prompt[key] for key in "1239"}
    lone["7"] = {"class_type": "KSampler", "inputs": {**links, **SAMPLING, "seed": best["seed"]}}
    lone["8"] = {"class_type": "TestKeep", "inputs": {"name": "latent", "value": ["7", 0]}}
    made = run_workflow(lone).kept["latent"][which]["samples"][best["image"] - which :][:1]
    assert torch.equal(run.kept["latent"][0]["samples"], made)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("models", [1, 2])
def test_the_calls_of_a_list_of_prompts_are_all_counted(run_workflow, graph, sampled, comfyui, run_node, keep, models):
    prompt = graph(max_attempts=5, max_calls=12, keep_candidates=keep)
    prompt["9"] = {"class_type": "TestGive", "inputs": {"key": "texts"}}
    prompt["10"] = {"class_type": "TestGive", "inputs": {"key": "models"}}
    prompt["11"] = {
        "class_type": "TestTinyCheckpoint",
        "inputs": {"family": "sd15", "seed": ["10", 0]},
    }
    values = comfyui.NODE_CLASS_MAPPINGS["TestGive"].values
    values["texts"], values["models"] = ["a cat", "a dog", "a bird"], [0, 1][:models]
    prompt["2"]["inputs"]["text"] = ["9", 0]
    prompt["6"]["inputs"]["model"] = ["11", 0]
    run = run_workflow(prompt)
    assert run.success, run.error
    assert sampled == [40, 40, 40, 41, 41, 41]
    log = log_of(run)
    assert log["calls"] == 12
    assert [row["calls"] for row in log["attempts"]] == [6] * 6
    assert "denoiser call" in log["stopped"]


def pictures_alive():
    """How many pictures of 64 × 64 pixels this process holds; a view counts as what it is cut from."""
    gc.collect()
    found = (thing for thing in gc.get_objects() if type(thing) is torch.Tensor and thing.shape[-3:] == (64, 64, 3))
    return len({thing.untyped_storage().data_ptr() for thing in found})


@pytest.mark.parametrize("keep", [True, False])
def test_memory_is_flat_over_many_attempts_without_candidates(run_workflow, graph, keep):
    prompt = graph(max_attempts=1, steps=1, keep_candidates=keep)
    assert run_workflow(prompt).success
    before = pictures_alive()
    prompt["6"]["inputs"]["max_attempts"] = 60
    run = run_workflow(prompt)
    assert run.success, run.error
    assert len(scores_of(run)) == 60
    more = pictures_alive() - before
    # With candidates ComfyUI's cache holds each picture once, as VAE Decode gave it, and we no copy.
    assert 59 <= more <= 62 if keep else more <= 2


def test_the_history_knows_the_seed_of_every_attempt(run_workflow, graph, pack, comfyui_base, monkeypatch):
    monkeypatch.setenv("LATENT_CRITIC_HISTORY", str(comfyui_base / "reroll.sqlite"))
    assert run_workflow(graph(seed=700, steps=3)).success
    rows = pack("core.history.store").History(comfyui_base / "reroll.sqlite").query()
    assert sorted(row["seed"] for row in rows) == [700, 701, 702]


def test_two_prompts_after_one_another_do_not_mix(run_workflow, graph, sampled):
    first, second = run_workflow(graph(seed=5)), run_workflow(graph(seed=90))
    assert first.success
    assert second.success
    assert sampled == [5, 6, 7, 90, 91, 92]
    assert [score.seed for score in second.kept["scores"][0]] == [90, 91, 92]
    assert first.kept["seed_used"][0] in (5, 6, 7)


def test_a_list_of_seeds_on_the_socket_is_one_reroll_each(run_workflow, graph, sampled, comfyui, run_node):
    prompt = graph(max_attempts=2)
    prompt["9"] = {"class_type": "TestGive", "inputs": {"key": "seeds"}}
    comfyui.NODE_CLASS_MAPPINGS["TestGive"].values["seeds"] = [1, 50]
    prompt["6"]["inputs"]["seed"] = ["9", 0]
    run = run_workflow(prompt)
    assert run.success, run.error
    assert sorted(sampled) == [1, 2, 50, 51]
    assert len(run.kept["image"]) == 2
    assert len(run.kept["candidates"]) == 4


def test_the_built_in_judge_decides_when_nothing_is_connected(run_workflow, graph):
    run = run_workflow(graph(judge=False, max_attempts=2))
    assert run.success, run.error
    assert log_of(run)["spec"]["name"] == "judge"
    assert "Nothing is connected to scorer" in run.kept["log"][0]


def test_the_node_shows_its_candidates(run_workflow, graph):
    run = run_workflow(graph(max_attempts=2))
    shown = [out for out in run.outputs.values() if "stopped because" in str(out.get("text"))]
    assert len(shown) == 1
    assert len(shown[0]["images"]) == 2
    displayed = {data["display_node"] for event, data in run_workflow.server.sent if event == "executed"}
    assert displayed <= {"6"} | {key for key in graph() if key.startswith("keep")}
