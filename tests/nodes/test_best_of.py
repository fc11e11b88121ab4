"""Best Of N in the real executor: what is sampled, what is dropped, what comes out, and what is remembered."""

import json

import pytest
import torch

pytestmark = pytest.mark.host
#: KSampler's inputs that every test shares.
SAMPLING = {"steps": 5, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
RACE = {
    "seed": 40,
    "n": 4,
    "seed_mode": "increment",
    "seed_list": "",
    "looks": "0.2, 0.6",
    "shares": "0.5",
    "early_abort": "off",
    "abort_quantile": 0.25,
    "finish_at_least": 1,
    "rows_at_once": 0,
    "preview_steps": "0",
}


class TestCountedModel:
    """The same MODEL; counts the rows that its network really computes, inside the network."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "count"
    CATEGORY = "tests"
    rows = []  # noqa: RUF012

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def count(self, model):
        network = model.model.diffusion_model
        network.register_forward_pre_hook(lambda module, args, named: self.rows.append(len(args[0])), with_kwargs=True)
        return (model,)


@pytest.fixture
def graph(comfyui, pack, scorers):
    """Builds a prompt around the node; the brightness of an image decides by default."""
    pack()
    comfyui.NODE_CLASS_MAPPINGS["TestCountedModel"] = TestCountedModel
    TestCountedModel.rows.clear()

    def build(node="LatentCriticBestOfN", judge=True, batch=1, **widgets):
        prompt = {
            "1": {"class_type": "TestTinyCheckpoint", "inputs": {"family": "sd15", "seed": 0}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["1", 1]}},
            "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
            "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": batch}},
            "5": {"class_type": "TestScorerSource", "inputs": {"key": "it"}},
            "7": {"class_type": "TestCountedModel", "inputs": {"model": ["1", 0]}},
        }
        links = {"latent_image": ["4", 0], "vae": ["1", 2], **({"scorer": ["5", 0]} if judge else {})}
        if node == "LatentCriticBestOfN":
            links |= {"model": ["7", 0], "positive": ["2", 0], "negative": ["3", 0], **SAMPLING}
        else:
            prompt["10"] = {
                "class_type": "CFGGuider",
                "inputs": {"model": ["7", 0], "positive": ["2", 0], "negative": ["3", 0], "cfg": 2.0},
            }
            prompt["11"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler_ancestral"}}
            prompt["12"] = {
                "class_type": "BasicScheduler",
                "inputs": {"model": ["7", 0], "scheduler": "normal", "steps": 5, "denoise": 1.0},
            }
            links |= {"guider": ["10", 0], "sampler": ["11", 0], "sigmas": ["12", 0]}
        prompt["6"] = {"class_type": node, "inputs": {**links, **RACE, **widgets}}
        for place, output in enumerate(comfyui.NODE_CLASS_MAPPINGS[node].GET_SCHEMA().outputs):
            prompt[f"keep {output.id}"] = {
                "class_type": "TestKeep",
                "inputs": {"name": output.id, "value": ["6", place]},
            }
        return prompt

    return build


def log_of(run):
    return json.loads(run.kept["log_json"][0])


def lone_ksampler(run_workflow, prompt, seed, **widgets):
    """Latent and image of a stock KSampler with the same inputs."""
    lone = {key: prompt[key] for key in "1234"}
    links = {name: prompt["6"]["inputs"][name] for name in ("positive", "negative", "latent_image")}
    inputs = {"model": ["1", 0], **links, **SAMPLING, **widgets, "seed": seed}
    lone["8"] = {"class_type": "KSampler", "inputs": inputs}
    lone["9"] = {"class_type": "VAEDecode", "inputs": {"samples": ["8", 0], "vae": ["1", 2]}}
    lone["k8"] = {"class_type": "TestKeep", "inputs": {"name": "latent", "value": ["8", 0]}}
    lone["k9"] = {"class_type": "TestKeep", "inputs": {"name": "image", "value": ["9", 0]}}
    run = run_workflow(lone)
    assert run.success, run.error
    return run.kept["latent"][0]["samples"], run.kept["image"][0]


def test_the_better_part_is_finished_and_the_best_comes_out(run_workflow, graph):
    run = run_workflow(graph(n=8, shares="0.5, 0.25"))
    assert run.success, run.error
    log = log_of(run)
    rows = {row["seed"]: row for row in log["candidates"]}
    assert list(rows) == list(range(40, 48))
    assert [look["live"] for look in log["looks"]] == [8, 4]
    assert [look["step"] for look in log["looks"]] == [1, 3]
    first = {seed: row["looks"]["1"] for seed, row in rows.items()}
    going = {seed for seed, row in rows.items() if row["dropped_after"] != 1}
    assert going == set(sorted(first, key=first.get)[-4:])
    (seed,) = (seed for seed, row in rows.items() if row["dropped_after"] is None)
    assert run.kept["seed_used"] == [seed]
    assert run.kept["passed"] == [True]
    assert run.kept["finished"] == [1]
    assert (
        run.kept["score"][0] == rows[seed]["score"] == pytest.approx(100 * float(run.kept["image"][0].mean()), abs=1e-4)
    )
    assert len(run.kept["candidates"]) == len(run.kept["scores"][0]) == 1
    assert torch.equal(run.kept["candidates"][0], run.kept["image"][0])


def test_the_saved_share_is_what_the_network_did_not_compute(run_workflow, graph):
    run = run_workflow(graph(n=8, shares="0.5, 0.25"))
    log, counted = log_of(run), sum(TestCountedModel.rows)
    assert counted == 2 * (8 * 1 + 4 * 2 + 1 * 2)  # conditioned and unconditioned
    assert log["calls_made"] == counted / 2
    assert log["calls_of_all"] == 8 * 5
    assert log["saved"] == pytest.approx(1 - 18 / 40)
    assert "18 denoiser calls made of 40 for all; 55 % saved" in run.kept["log"][0]
    shown = run.outputs["6"]
    assert shown["best_of"][0]["saved"] == log["saved"]
    assert "55 % saved" in shown["text"][0]
    assert len(shown["images"]) == 1
    assert [row["seed"] for row in shown["scores"]] == run.kept["seed_used"]


@pytest.mark.parametrize("node", ["LatentCriticBestOfN", "LatentCriticBestOfNCustom"])
def test_preview_steps_are_counted_and_change_no_winner(run_workflow, graph, node):
    plain = {"n": 4, "looks": "0.2, 0.6", "shares": "1, 0.75", "rows_at_once": 1}
    without = run_workflow(graph(node, **plain))
    assert without.success, without.error
    assert log_of(without)["calls_made"] == 4 * 3 + 3 * 2
    TestCountedModel.rows.clear()
    tried = run_workflow(graph(node, **plain, preview_steps="2"))
    log = log_of(tried)
    # Of 5 steps: 2 more after the first, 1 more after the third, where only 2 are left, for each of 4.
    assert log["calls_made"] == sum(TestCountedModel.rows) / 2 == 18 + 4 * 2 + 4 * 1
    assert log["calls_of_all"] == 20
    assert log["saved"] == pytest.approx(-10 / 20)
    assert tried.kept["seed_used"] == without.kept["seed_used"]
    assert torch.equal(tried.kept["latent"][0]["samples"], without.kept["latent"][0]["samples"])
    each = log_of(run_workflow(graph(node, **plain, preview_steps="1, 2")))
    assert each["calls_made"] == 18 + 4 * 1 + 4 * 1
    looks = [[row["looks"] for row in log_of(run)["candidates"]] for run in (without, tried)]
    assert looks[0] != looks[1]


def test_nobody_is_looked_at_where_nobody_can_be_dropped(run_workflow, graph):
    for widgets in ({"n": 1}, {"n": 4, "finish_at_least": 4}):
        run = run_workflow(graph(**widgets, preview_steps="2"))
        assert run.success, run.error
        log = log_of(run)
        assert log["looks"] == []
        assert log["calls_made"] == log["calls_of_all"] == 5 * widgets["n"]
        assert log["notes"] == ["No look after step 1, 3: nobody could be dropped there."]


def test_a_prompt_without_preview_steps_is_as_before(run_workflow, graph):
    prompt = graph()
    del prompt["6"]["inputs"]["preview_steps"]
    run = run_workflow(prompt)
    assert run.success, run.error
    assert log_of(run) == log_of(run_workflow(graph()))


def test_no_preview_steps_where_they_would_leave_a_trace(run_workflow, graph):
    prompt = graph(preview_steps="2")
    prompt["20"] = {
        "class_type": "APG",
        "inputs": {"model": ["7", 0], "eta": 1.0, "norm_threshold": 5.0, "momentum": -0.5},
    }
    prompt["6"]["inputs"]["model"] = ["20", 0]
    run = run_workflow(prompt)
    assert run.success, run.error
    assert log_of(run)["calls_made"] == 4 + 2 * 2 + 1 * 2
    (note,) = log_of(run)["notes"]
    assert "without preview steps: its guidance remembers earlier steps" in note


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde", "lcm"])
@pytest.mark.filterwarnings("ignore:Should have t:UserWarning:torchsde")
def test_a_stock_ksampler_makes_the_winner_again(run_workflow, graph, sampler):
    prompt = graph(sampler_name=sampler)
    run = run_workflow(prompt)
    assert run.success, run.error
    found, seed = run.kept["latent"][0]["samples"], run.kept["seed_used"][0]
    latent, image = lone_ksampler(run_workflow, prompt, seed, sampler_name=sampler)
    assert float((found - latent).abs().max()) <= 1e-3 * float(latent.std())
    assert float((run.kept["image"][0] - image).abs().max()) <= 1e-3
    from comfy.sample import prepare_noise

    assert torch.equal(run.kept["noise"][0]["samples"], prepare_noise(torch.zeros(1, 4, 8, 8), seed))
    exact = run_workflow(graph(sampler_name=sampler, rows_at_once=1))
    assert exact.kept["seed_used"] == [seed]
    assert torch.equal(exact.kept["latent"][0]["samples"], latent)
    assert torch.equal(exact.kept["image"][0], image)


def test_custom_sampling_is_sampler_custom_advanced(run_workflow, graph):
    prompt = graph("LatentCriticBestOfNCustom", rows_at_once=1)
    run = run_workflow(prompt)
    assert run.success, run.error
    lone = {key: prompt[key] for key in ("1", "2", "3", "4", "7", "10", "11", "12")}
    lone["13"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": run.kept["seed_used"][0]}}
    links = {"guider": ["10", 0], "sampler": ["11", 0], "sigmas": ["12", 0], "latent_image": ["4", 0]}
    lone["8"] = {"class_type": "SamplerCustomAdvanced", "inputs": {**links, "noise": ["13", 0]}}
    lone["k"] = {"class_type": "TestKeep", "inputs": {"name": "latent", "value": ["8", 0]}}
    latent = run_workflow(lone).kept["latent"][0]["samples"]
    assert torch.equal(run.kept["latent"][0]["samples"], latent)
    assert log_of(run)["saved"] > 0


def test_no_look_finishes_everybody(run_workflow, graph):
    run = run_workflow(graph(looks=""))
    assert run.success, run.error
    log = log_of(run)
    assert log["looks"] == []
    assert log["saved"] == 0
    scores = [row["score"] for row in log["candidates"]]
    assert run.kept["score"] == [max(scores)]
    assert len(run.kept["candidates"]) == 4
    assert [score.seed for score in run.kept["scores"][0]] == [40, 41, 42, 43]


@pytest.mark.parametrize(
    "widgets", [{"n": 1}, {"n": 1, "looks": ""}, {"steps": 1}, {"steps": 2, "looks": "0.1, 0.2, 0.3, 0.9"}]
)
def test_small_runs(run_workflow, graph, widgets):
    run = run_workflow(graph(**widgets))
    assert run.success, run.error
    assert run.kept["passed"] == [True]
    if widgets.get("steps") == 1:
        assert "1 steps leave no room for a look" in run.kept["log"][0]
        assert run.kept["finished"] == [4]


def test_nothing_to_sample_is_said_once(run_workflow, graph):
    run = run_workflow(graph(denoise=0.0, n=2))
    assert run.success, run.error
    notes = log_of(run)["notes"]
    assert len(notes) == 1
    assert "no step to sample" in notes[0]
    assert TestCountedModel.rows == []


def test_a_list_longer_than_n_is_said(run_workflow, graph):
    run = run_workflow(graph(looks="", steps=1, n=2, seed_mode="list", seed_list="7, 3, 7, 9, 11"))
    assert run.success, run.error
    assert [row["seed"] for row in log_of(run)["candidates"]] == [7, 3]
    assert log_of(run)["notes"] == ["2 of 4 listed seeds are used, because n is 2."]


def test_seed_modes(run_workflow, graph):
    def seeds(**widgets):
        run = run_workflow(graph(looks="", steps=1, **widgets))
        assert run.success, run.error
        return [row["seed"] for row in log_of(run)["candidates"]]

    assert seeds(seed_mode="list", seed_list="7, 3, 7, 9") == [7, 3, 9]
    random = seeds(seed_mode="random")
    assert random[0] == 40
    assert len(set(random)) == 4
    assert seeds(n=2, seed=2**64 - 1) == [2**64 - 1, 0]


@pytest.mark.parametrize(
    ("widgets", "message"),
    [
        ({"seed_mode": "list"}, "at least one seed in the list"),
        ({"seed_mode": "list", "seed_list": "7, cat"}, "'cat'"),
        ({"looks": "0.5, 0.2"}, "rising fractions"),
        ({"looks": "half"}, "looks as numbers"),
        ({"shares": "0.5, 0.5, 0.5"}, "one share for all looks, or 2"),
        ({"shares": "2"}, "shares above 0"),
        ({"preview_steps": "-1"}, "extra steps of at least 0"),
        ({"preview_steps": "1.5"}, "preview_steps as whole numbers"),
        ({"n": 0}, "n"),
    ],
)
def test_bad_input_samples_nothing(run_workflow, graph, widgets, message):
    run = run_workflow(graph(**widgets))
    assert not run.success
    assert message in run.error
    assert TestCountedModel.rows == []


def test_something_else_than_a_scorer_is_refused(run_workflow, graph, scorers):
    scorers["it"] = "a word"
    run = run_workflow(graph())
    assert "a scorer (LC_SCORER)" in run.error
    assert TestCountedModel.rows == []


def broken(judge, when):
    """The scorer gives a reason instead of a score for the calls that ``when`` picks."""
    plain, seen = judge.images.reason_unscorable, []

    def reason_unscorable(image):
        seen.append(image)
        return "broken decode" if when(len(seen) - 1) else plain(image)

    judge.images = type(
        "images", (), {"as_list": judge.images.as_list, "reason_unscorable": staticmethod(reason_unscorable)}
    )


def test_a_preview_without_a_score_goes_on_last(run_workflow, graph, scorers):
    broken(scorers["it"], lambda call: call in (0, 1, 2))
    run = run_workflow(graph(looks="0.4"))
    assert run.success, run.error
    rows = log_of(run)["candidates"]
    assert [row["dropped_after"] for row in rows] == [None, 2, 2, None]
    assert rows[1]["reason"] == "not scored: broken decode"


def test_a_finished_image_without_a_score_never_wins(run_workflow, graph, scorers):
    broken(scorers["it"], lambda call: call == 0)
    run = run_workflow(graph(looks="", n=2))
    assert run.kept["seed_used"] == [41]
    assert [row["reason"] for row in log_of(run)["candidates"]] == ["broken decode", ""]


def test_when_nothing_has_a_score_the_images_are_blocked_and_the_log_is_not(run_workflow, graph, scorers):
    broken(scorers["it"], lambda call: True)
    run = run_workflow(graph())
    assert set(run.kept) == {"passed", "finished", "scores", "candidates", "log", "log_json"}
    assert run.kept["passed"] == [False]
    assert run.kept["finished"] == [4]  # looks without any score drop nobody
    assert "no preview has a score: broken decode" in run.kept["log"][0]
    blocked = [data["exception_message"] for event, data in run_workflow.server.sent if event == "execution_error"]
    assert len(blocked) == 5
    assert all("No finished image has a score" in text for text in blocked)


def test_early_abort_of_the_batch(run_workflow, graph):
    run = run_workflow(graph(n=5, shares="1", looks="0.4", early_abort="of this batch", abort_quantile=0.5))
    assert run.success, run.error
    dropped = [row for row in log_of(run)["candidates"] if row["dropped_after"]]
    assert len(dropped) == 2
    assert all("quantile 0.5 of this batch" in row["reason"] for row in dropped)
    assert "quantile 0.5 of this batch" in run.kept["log"][0]


@pytest.fixture
def history(monkeypatch, tmp_path, pack):
    monkeypatch.setenv("LATENT_CRITIC_HISTORY", str(tmp_path / "history.sqlite"))
    return pack("core.history.store").History(tmp_path / "history.sqlite")


def test_finished_images_are_remembered_and_previews_are_not(run_workflow, graph, history):
    run = run_workflow(graph())
    assert run.success, run.error
    found = history.query()
    assert [row["seed"] for row in found] == run.kept["seed_used"]
    assert [row["score"] for row in found] == run.kept["score"]
    assert [row["prompt"][:2] for row in found] == ["c:"]


def test_no_hash_is_made_for_a_history_that_is_off(run_workflow, graph, pack, monkeypatch):
    asked = []
    monkeypatch.setenv("LATENT_CRITIC_HISTORY", "off")
    monkeypatch.setattr(pack("nodes._best_of"), "of_guider", asked.append)
    run = run_workflow(graph())
    assert run.success, run.error
    assert asked == []


def test_early_abort_by_history(run_workflow, graph, history):
    learning = graph(n=24, shares="1", looks="0.4", early_abort="of history", abort_quantile=0.5, finish_at_least=0)
    run = run_workflow(learning)
    assert run.success, run.error
    assert run.kept["finished"] == [24]  # nothing to compare with yet
    previews = [next(iter(row["looks"].values())) for row in log_of(run)["candidates"]]
    spec_of = history.specs()
    apart = {digest for digest, spec in spec_of.items() if "preview" in spec.settings}
    assert len(apart) == 1
    assert all("preview_steps" not in spec_of[digest].settings["preview"] for digest in apart)
    assert sum(row["spec"] in apart for row in history.query()) == 24
    again = graph(
        n=6, shares="1", looks="0.4", early_abort="of history", abort_quantile=0.5, finish_at_least=0, seed=900
    )
    run = run_workflow(again)
    assert run.success, run.error
    middle = sorted(previews)[12]
    for row in log_of(run)["candidates"]:
        below = next(iter(row["looks"].values())) < middle
        assert below == (row["dropped_after"] is not None)
        assert ("of 24 earlier ones at this step" in row["reason"]) == below
    assert "2" in log_of(run)["candidates"][0]["looks"]
    assert log_of(run)["looks"][0]["step"] == 2


def test_an_abort_of_everybody_blocks_with_the_reason(run_workflow, graph, history):
    common = {"shares": "1", "looks": "0.4", "early_abort": "of history", "finish_at_least": 0}
    assert run_workflow(graph(n=24, abort_quantile=0.0, **common)).success
    run = run_workflow(graph(n=1, seed=900, abort_quantile=1.0, **common))
    assert run.kept["finished"] == [0]
    assert run.kept["passed"] == [False]
    assert log_of(run)["saved"] == pytest.approx(0.6)
    blocked = [data["exception_message"] for event, data in run_workflow.server.sent if event == "execution_error"]
    assert all("All were dropped" in text and "earlier ones at this step" in text for text in blocked)
    kept = run_workflow(graph(n=1, seed=901, abort_quantile=1.0, **{**common, "finish_at_least": 1}))
    assert kept.kept["finished"] == [1]


@pytest.mark.parametrize("when", [1, 5])
def test_cancel_within_leaves_the_history_whole(run_workflow, graph, history, when, scorers):
    from comfy import model_management

    judge, seen = scorers["it"], []
    plain = judge.images.reason_unscorable

    def pressing(image):
        seen.append(image)
        if len(seen) == when:
            model_management.interrupt_current_processing(True)
        return plain(image)

    judge.images = type("images", (), {"as_list": judge.images.as_list, "reason_unscorable": staticmethod(pressing)})
    try:
        run = run_workflow(graph(early_abort="of history"))
    finally:
        model_management.interrupt_current_processing(False)
    assert not run.success
    assert [kind for kind, _ in run.messages if "interrupt" in kind or "error" in kind] == ["execution_interrupted"]
    assert not run.kept
    assert len(seen) == when
    assert all("preview" in history.specs()[row["spec"]].settings for row in history.query())
    again = run_workflow(graph())
    assert again.success, again.error
    assert again.kept["passed"] == [True]


def test_cancel_in_the_middle_of_sampling(run_workflow, graph, monkeypatch):
    from comfy import model_management

    def press(module, args, named):
        model_management.interrupt_current_processing(len(TestCountedModel.rows) == 2)

    prompt = graph(looks="")
    monkeypatch.setattr(TestCountedModel, "count", lambda self, model: _hooked(model, press))
    try:
        run = run_workflow(prompt)
    finally:
        model_management.interrupt_current_processing(False)
    assert [kind for kind, _ in run.messages if "interrupt" in kind or "error" in kind] == ["execution_interrupted"]
    assert len(TestCountedModel.rows) == 2


def _hooked(model, press):
    network = model.model.diffusion_model
    network.register_forward_pre_hook(
        lambda module, args, named: TestCountedModel.rows.append(len(args[0])), with_kwargs=True
    )
    network.register_forward_pre_hook(press, with_kwargs=True)
    return (model,)


def test_a_batch_in_the_latent(run_workflow, graph):
    run = run_workflow(graph(batch=2, n=2))
    assert run.success, run.error
    log = log_of(run)
    assert [(row["seed"], row["image"]) for row in log["candidates"]] == [(40, 0), (40, 1), (41, 0), (41, 1)]
    place = next(row["image"] for row in log["candidates"] if row["best"])
    assert run.kept["latent"][0]["batch_index"] == [place]
    latent, _ = lone_ksampler(run_workflow, graph(batch=2, n=2), run.kept["seed_used"][0])
    found = run.kept["latent"][0]["samples"]
    assert float((found - latent[place : place + 1]).abs().max()) <= 1e-3 * float(latent.std())


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")  # ComfyUI's dpm_adaptive
def test_a_sampler_that_couples_rows_runs_seed_by_seed(run_workflow, graph):
    prompt = graph(n=3, sampler_name="dpm_adaptive")
    run = run_workflow(prompt)
    assert run.success, run.error
    assert "Sampled seed by seed, because the sampler chooses its steps by all images" in run.kept["log"][0]
    assert run.kept["finished"] == [3]
    latent, _ = lone_ksampler(run_workflow, prompt, run.kept["seed_used"][0], sampler_name="dpm_adaptive")
    assert torch.equal(run.kept["latent"][0]["samples"], latent)


def test_the_built_in_judge_decides_when_nothing_is_connected(run_workflow, graph):
    run = run_workflow(graph(judge=False, n=2, looks="0.4"))
    assert run.success, run.error
    assert log_of(run)["spec"]["name"] == "judge"
    assert "Nothing is connected to scorer" in run.kept["log"][0]


def test_a_second_run_comes_from_the_cache(run_workflow, graph):
    assert run_workflow(graph()).success
    TestCountedModel.rows.clear()
    again = run_workflow(graph())
    assert again.success
    assert "6" in again.cached
    assert TestCountedModel.rows == []


def test_the_preview_is_one_picture(run_workflow, graph, monkeypatch):
    import latent_preview

    seen = []
    plain = latent_preview.prepare_callback

    def prepare_callback(model, steps, *rest):
        inner = plain(model, steps, *rest)

        def callback(step, x0, x, total):
            seen.append((step, len(x0), total))
            return inner(step, x0, x, total)

        return callback

    monkeypatch.setattr(latent_preview, "prepare_callback", prepare_callback)
    assert run_workflow(graph()).success
    assert seen == [(step, 1, 5) for step in range(5)]
