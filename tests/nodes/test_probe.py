"""Probe Model, Score From Probe and Fit Probe Head in the real executor, with everything that caches and repeats."""

import pytest
import torch

pytestmark = pytest.mark.host
SAMPLING = {"steps": 6, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
LEVELS = "500, 150"


class TestHeadSource:
    """Hands out the head of the running test."""

    RETURN_TYPES = ("LC_HEAD",)
    FUNCTION = "give"
    CATEGORY = "tests"
    heads = {}  # noqa: RUF012 (one store for the test process, filled by the fixture)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"key": ("STRING", {})}}

    def give(self, key):
        return (self.heads[key],)


def base(seed=1, batch=2, family="sd15", levels=LEVELS):
    """Checkpoint, prompts, empty latent, probe, sampler."""
    return {
        "1": {"class_type": "TestTinyCheckpoint", "inputs": {"family": family, "seed": 0}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": batch}},
        "5": {
            "class_type": "LatentCriticProbeModel",
            "inputs": {"model": ["1", 0], "timesteps": levels, "taps": "", "memory_mib": 64},
        },
        "6": sampler(["5", 0], ["4", 0], seed),
    }


def sampler(model, latent, seed, **more):
    inputs = {"model": model, "positive": ["2", 0], "negative": ["3", 0], "latent_image": latent}
    return {"class_type": "KSampler", "inputs": {**inputs, **SAMPLING, "seed": seed, **more}}


def score(latents, probe=("5", 1), **widgets):
    inputs = {"latents": latents, "probe": list(probe), "head": ["head", 0]}
    return {
        "class_type": "LatentCriticScoreFromProbe",
        "inputs": {**inputs, "keep": 1, "allow_other_model": False, **widgets},
    }


def keep(prompt, **sources):
    for name, source in sources.items():
        prompt[f"keep {name}"] = {"class_type": "TestKeep", "inputs": {"name": name, "value": source}}
    return prompt


def fit_graph(seed, scorer_images=True, **widgets):
    prompt = base(seed, batch=4)
    prompt["7"] = {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0], "vae": ["1", 2]}}
    prompt["8"] = {"class_type": "LatentCriticScoreImages", "inputs": {"images": ["7", 0]}}
    inputs = {"latents": ["6", 0], "probe": ["5", 1], "name": "tiny", "fit_at": 20, "scores": ["8", 0], **widgets}
    prompt["9"] = {"class_type": "LatentCriticFitProbeHead", "inputs": inputs}
    return keep(prompt, head=["9", 0], collected=["9", 1], report=["9", 2])


@pytest.fixture(scope="module")
def collections(comfyui_base):
    return comfyui_base / "user" / "latent_critic" / "finished_runs", comfyui_base / "models" / "quality_heads"


@pytest.fixture(scope="module")
def head(comfyui, pack):
    """A head for the tiny SD 1.5 and these levels, fitted to random targets: what it says does not matter here."""
    import comfy.sample

    probe_model = pack("core.hosts.comfyui.probe").probe_model
    fit = pack("core.methods.probe_fit")
    runs = pack("core.heads.rated_runs")
    tiny = comfyui.NODE_CLASS_MAPPINGS["TestTinyCheckpoint"]()
    model, clip, _ = tiny.load("sd15", 0)
    clone, probe = probe_model(model, [500, 150])
    condition = clip.encode_from_tokens_scheduled(clip.tokenize("a sheep"))
    features, count = [], 6
    for seed in range(count):
        noise = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            latents = comfy.sample.sample(
                clone, noise, 6, 2.0, "euler", "normal", condition, condition, torch.zeros_like(noise),
                disable_pbar=True, seed=seed,
            )  # fmt: skip
        features += [found.features(probe.plan) for found in probe.find(latents)]
    features = torch.stack(features)
    targets = (50 + 20 * (features[:, 0] - features[:, 0].mean()) / features[:, 0].std()).clamp(0, 100).double()
    names = tuple(str(n // 4) for n in range(4 * count))
    collected = runs.Collected(features.clone(), targets, names, names)
    made, _ = fit.fit_probe_head(probe, fit.Target.ratings(), collected, "test")
    comfyui.NODE_CLASS_MAPPINGS.setdefault("TestHeadSource", TestHeadSource)
    TestHeadSource.heads["it"] = made
    return {"head": {"class_type": "TestHeadSource", "inputs": {"key": "it"}}}


def values(run, name="scores"):
    return run.kept[name][0].values()


def test_generate_probe_score_pick(run_workflow, head):
    prompt = {**base(batch=4), **head, "8": score(["6", 0], keep=2)}
    keep(prompt, scores=["8", 2], best=["8", 0], rest=["8", 1], index=["8", 4], latent=["6", 0], report=["8", 6])
    run = run_workflow(prompt)
    assert run.success, run.error
    found, latents = values(run), run.kept["latent"][0]["samples"]
    order = sorted(range(4), key=lambda place: -found[place])
    assert len(set(found)) == 4
    assert run.kept["index"] == [order[0]]
    assert torch.equal(run.kept["best"][0]["samples"], latents[order[:2]])
    assert run.kept["best"][0]["batch_index"] == order[:2]
    assert torch.equal(run.kept["rest"][0]["samples"], latents[order[2:]])
    assert run.outputs["8"]["scores"][0]["kept"] is True
    assert "your ratings" in run.kept["report"][0]


@pytest.mark.parametrize("family", ["sd15", "sd20", "sdxl"])
def test_what_comes_out_of_the_sampler_is_what_comes_out_without_a_probe(run_workflow, family):
    prompt = base(family=family)
    prompt["7"] = sampler(["1", 0], ["4", 0], 1)
    run = run_workflow(keep(prompt, probed=["6", 0], plain=["7", 0]))
    assert torch.equal(run.kept["probed"][0]["samples"], run.kept["plain"][0]["samples"])


def test_a_cached_sampler_is_scored_by_the_run_that_it_came_from(run_workflow, head):
    first = run_workflow(keep({**base(), **head, "8": score(["6", 0])}, scores=["8", 2]))
    again = run_workflow(keep({**base(), **head, "8": score(["6", 0], keep=2)}, scores=["8", 2]))
    assert {"5", "6"} <= again.cached
    assert "8" not in again.cached
    assert values(again) == values(first)


def test_a_cached_probe_sees_a_new_seed(run_workflow, head):
    prompts = [keep({**base(seed), **head, "8": score(["6", 0])}, scores=["8", 2]) for seed in (1, 2, 1)]
    runs = [run_workflow(prompt) for prompt in prompts]
    assert "5" in runs[1].cached
    assert "6" not in runs[1].cached
    assert values(runs[0]) != values(runs[1])
    assert values(runs[2]) == values(runs[0])


def test_a_latent_that_the_probe_never_saw_is_a_reason(run_workflow, head):
    """As when ComfyUI drops the probe from its cache, and keeps the latent."""
    prompt = {**base(), **head}
    prompt["7"] = sampler(["1", 0], ["4", 0], 1)
    prompt["8"] = score(["7", 0])
    before = len(run_workflow.server.sent)
    run = run_workflow(keep(prompt, best=["8", 0], scores=["8", 2], all=["8", 5]))
    assert run.success, run.error
    assert "nothing was sampled with this probe" in run.kept["scores"][0][0].reason
    assert run.kept["all"] == [False]
    assert "best" not in run.kept
    blocked = [data for event, data in run_workflow.server.sent[before:] if event == "execution_error"]
    assert "cache" in blocked[0]["exception_message"]


def test_two_samplers_on_one_probed_model_and_a_hires_pass(run_workflow, head):
    prompt = {**base(), **head}
    prompt["7"] = sampler(["5", 0], ["4", 0], 99)
    inputs = {"samples": ["6", 0], "upscale_method": "nearest-exact", "width": 128, "height": 128, "crop": "disabled"}
    prompt["up"] = {"class_type": "LatentUpscale", "inputs": inputs}
    prompt["hires"] = sampler(["5", 0], ["up", 0], 5, denoise=0.6)
    names = {"first": "6", "second": "7", "changed": "up", "third": "hires"}
    for name, source in names.items():
        prompt[f"score {name}"] = score([source, 0])
        keep(prompt, **{name: [f"score {name}", 2]})
    run = run_workflow(prompt)
    assert run.success, run.error
    found = {name: values(run, name) for name in names}
    assert None not in [*found["first"], *found["second"], *found["third"]]
    assert len({*found["first"], *found["second"], *found["third"]}) == 6
    assert found["changed"] == [None, None]
    assert "before anything changes or upscales it" in run.kept["changed"][0][0].reason
    alone = run_workflow(keep({**base(), **head, "8": score(["6", 0])}, scores=["8", 2]))
    assert values(alone) == found["first"]


def test_places_of_a_batch_stay(run_workflow, head):
    """One latent of the batch, sampled by itself with its batch_index, is the same image with the same score."""
    prompt = {**base(batch=3), **head}
    prompt["cut"] = {"class_type": "LatentFromBatch", "inputs": {"samples": ["4", 0], "batch_index": 2, "length": 1}}
    prompt["7"] = sampler(["5", 0], ["cut", 0], 1)
    prompt["8"], prompt["9"] = score(["6", 0], keep=3), score(["7", 0])
    run = run_workflow(keep(prompt, whole=["8", 2], one=["9", 2], latent=["9", 0], again=["8", 0]))
    assert values(run, "one")[0] == pytest.approx(values(run, "whole")[2], abs=1e-2)
    assert run.kept["latent"][0]["batch_index"] == [2]
    assert sorted(run.kept["again"][0]["batch_index"]) == [0, 1, 2]


def test_picked_latents_are_known_too(run_workflow, head):
    prompt = {**base(batch=4), **head, "8": score(["6", 0], keep=2), "9": score(["8", 1], keep=2)}
    run = run_workflow(keep(prompt, all=["8", 2], rest=["9", 2]))
    assert values(run, "rest") == sorted(values(run, "all"), reverse=True)[2:]


def test_nodes_after_the_probe_are_sampled_with(run_workflow, head):
    """A clone of the probed model still records: here one with another guidance."""
    prompt = {**base(), **head}
    prompt["r"] = {"class_type": "RescaleCFG", "inputs": {"model": ["5", 0], "multiplier": 0.7}}
    prompt["6"]["inputs"]["model"] = ["r", 0]
    prompt["8"] = score(["6", 0])
    run = run_workflow(keep(prompt, scores=["8", 2]))
    assert None not in values(run)


@pytest.mark.parametrize(("looks", "shares"), [("", ""), ("0.3", "0.5")])
def test_best_of_n_on_a_probed_model(run_workflow, head, looks, shares):
    """Candidates that are dropped on the way leave no whole record: a reason, where it is not simply scored."""
    prompt = {**base(), **head}
    race = {"n": 4, "seed_mode": "increment", "seed_list": "", "looks": looks, "shares": shares, "early_abort": "off"}
    limits = {"abort_quantile": 0.25, "finish_at_least": 1, "rows_at_once": 0}
    inputs = prompt["6"]["inputs"]
    prompt["6"] = {"class_type": "LatentCriticBestOfN", "inputs": {**inputs, **race, **limits, "vae": ["1", 2]}}
    prompt["4"]["inputs"]["batch_size"] = 1
    prompt["8"] = score(["6", 1])
    run = run_workflow(keep(prompt, scores=["8", 2]))
    assert run.success, run.error
    (found,) = run.kept["scores"][0]
    assert found.ok == (not looks) or found.reason


def test_other_noise_levels_are_refused_by_name(run_workflow, head):
    run = run_workflow({**base(levels="500, 100"), **head, "8": score(["6", 0])})
    assert not run.success
    assert "sigmas" in run.error


def test_another_checkpoint_is_refused_or_only_ranks(run_workflow, head):
    prompt = {**base(), **head, "8": score(["6", 0])}
    prompt["1"]["inputs"]["seed"] = 7
    run = run_workflow(prompt)
    assert "fingerprint" in run.error
    prompt["8"]["inputs"]["allow_other_model"] = True
    run = run_workflow(keep(prompt, scores=["8", 2]))
    assert run.success, run.error
    assert not run.kept["scores"][0].spec.calibrated
    assert "its scores rank, without a scale" in run.outputs["8"]["text"][0]


@pytest.mark.parametrize("steps", [1, 2])
def test_too_few_steps_are_a_reason(run_workflow, head, steps):
    prompt = {**base(), **head, "8": score(["6", 0])}
    prompt["6"]["inputs"]["steps"] = steps
    run = run_workflow(keep(prompt, scores=["8", 2]))
    assert all("never came near" in one.reason for one in run.kept["scores"][0])


@pytest.mark.usefixtures("head")
def test_a_head_is_fitted_over_runs_and_used(run_workflow, collections):
    reports = []
    for seed in range(6):
        run = run_workflow(fit_graph(seed))
        assert run.success, run.error
        reports.append(run.kept["report"][0])
        assert run.kept["collected"] == [4 * (seed + 1)]
        assert ("head" in run.kept) == (seed >= 4)
    assert "A head is fitted at 20." in reports[3]
    assert "fitted now, to judge's scores of 20 images" in reports[4]
    assert "seeds that the head had not seen" in reports[4]
    assert "estimates a scorer, not people" in reports[4]
    assert "fitted now" in reports[5]
    store, heads = collections
    assert (store / "tiny.sqlite").is_file()
    assert (heads / "tiny.safetensors").is_file()
    assert run.kept["head"][0].meta.kind == "probe"
    prompt = base(50)
    prompt["8"] = {**score(["6", 0])}
    TestHeadSource.heads["fitted"] = run.kept["head"][0]
    prompt["head"] = {"class_type": "TestHeadSource", "inputs": {"key": "fitted"}}
    later = run_workflow(keep(prompt, scores=["8", 2]))
    assert None not in values(later)
    assert not later.kept["scores"][0].spec.calibrated
    again = run_workflow(fit_graph(5))
    assert again.kept["collected"] == [24]


def test_scores_of_another_kind_do_not_join_a_collection(run_workflow, run_node, comfyui):
    prompt = fit_graph(0, name="mixed")
    assert run_workflow(prompt).success
    rated = fit_graph(1, name="mixed")
    del rated["9"]["inputs"]["scores"]
    rated["r"] = {"class_type": "TestGive", "inputs": {"key": "ratings"}}
    comfyui.NODE_CLASS_MAPPINGS["TestGive"].values["ratings"] = [10.0, 20.0, 30.0, 40.0]
    rated["9"]["inputs"]["ratings"] = ["r", 0]
    run = run_workflow(rated)
    assert "another name" in run.error
    rated["9"]["inputs"]["name"] = "rated"
    run = run_workflow(rated)
    assert run.success, run.error
    for wrong in (150.0, float("inf"), float("nan")):
        comfyui.NODE_CLASS_MAPPINGS["TestGive"].values[str(wrong)] = [10.0, 20.0, 30.0, wrong]
        rated["r"] = {"class_type": "TestGive", "inputs": {"key": str(wrong)}}
        assert "from 0 to 100 as your ratings" in run_workflow(rated).error


def test_a_head_of_another_model_or_plan_is_not_handed_on(head, comfyui, pack):
    node, fit = pack("nodes.fit_probe_head"), pack("core.methods.probe_fit")
    probe_model = pack("core.hosts.comfyui.probe").probe_model
    tiny = comfyui.NODE_CLASS_MAPPINGS["TestTinyCheckpoint"]()

    def told(seed, levels, target):
        _, probe = probe_model(tiny.load("sd15", seed)[0], levels)
        return node._still_told(probe, TestHeadSource.heads["it"], target)

    assert told(0, [500, 150], fit.Target.ratings())
    assert not told(7, [500, 150], fit.Target.ratings())
    assert not told(0, [500, 100], fit.Target.ratings())
    assert not told(0, [500, 150], fit.Target("others", "others"))


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", ".hidden"])
def test_names_that_lead_elsewhere_are_refused(run_workflow, name):
    run = run_workflow(fit_graph(0, name=name))
    assert "a plain name" in run.error


def test_neither_scores_nor_ratings_is_one_clear_error(run_workflow):
    prompt = fit_graph(0)
    del prompt["9"]["inputs"]["scores"]
    assert "scores or ratings" in run_workflow(prompt).error


@pytest.mark.parametrize("text", ["", "fifty", "1000", "50, 50"])
def test_bad_timesteps_are_one_clear_error(run_workflow, text):
    run = run_workflow(
        base(levels=text) | {"8": {"class_type": "TestKeep", "inputs": {"name": "x", "value": ["5", 1]}}}
    )
    assert "timesteps" in run.error or "timestep from" in run.error
