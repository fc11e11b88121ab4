"""Gate in the real executor: which branch runs, and for what."""

import pytest
import torch

pytestmark = pytest.mark.host


class AnyType(str):
    def __ne__(self, other):
        return False

    __hash__ = str.__hash__


class TestExpensive:
    """Counts how often it runs and on how many images; its result is a little brighter."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "work"
    CATEGORY = "tests"
    ran = []  # noqa: RUF012 (one store for the test process, emptied by the fixture)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",), "name": ("STRING", {"default": "value"})}}

    def work(self, images, name):
        self.ran.append((name, len(images)))
        return (images + 0.01,)


@pytest.fixture
def gate(comfyui, run_workflow, run_node, scorer, pictures):
    """`gate(levels, threshold, batch, otherwise, single)` → the run of: pictures, scores, two branches, Gate."""
    comfyui.NODE_CLASS_MAPPINGS["TestExpensive"] = TestExpensive
    TestExpensive.ran.clear()
    give = comfyui.NODE_CLASS_MAPPINGS.get("TestGive")

    def run(levels, threshold=50.0, batch=True, otherwise=False, in_front=False):
        images = pictures(levels)
        give.values["images"] = [images] if batch else [images[i : i + 1] for i in range(len(images))]
        give.values["scorer"] = [scorer()]
        prompt = {
            "images": {"class_type": "TestGive", "inputs": {"key": "images"}},
            "scorer": {"class_type": "TestGive", "inputs": {"key": "scorer"}},
            "scores": {"class_type": "LatentCriticScoreImages", "inputs": {"images": ["images", 0]}},
            "good": {"class_type": "TestExpensive", "inputs": {"images": ["images", 0], "name": "value"}},
            "gate": {"class_type": "LatentCriticGate", "inputs": {"threshold": threshold, "scores": ["scores", 0]}},
        }
        prompt["scores"]["inputs"]["scorer"] = ["scorer", 0]
        prompt["gate"]["inputs"]["value"] = ["images" if in_front else "good", 0]
        source = "gate"
        if otherwise:
            prompt["rest"] = {"class_type": "TestExpensive", "inputs": {"images": ["images", 0], "name": "otherwise"}}
            prompt["gate"]["inputs"]["otherwise"] = ["rest", 0]
        if in_front:
            prompt["good"]["inputs"]["images"] = ["gate", 0]
            source = "good"
        for place, name in enumerate(("out", "passed", "any_passed", "report")):
            value = [source if name == "out" else "gate", place if name != "out" or not in_front else 0]
            prompt[f"keep {name}"] = {"class_type": "TestKeep", "inputs": {"name": name, "value": value}}
        result = run_workflow(prompt)
        sent = [data for event, data in run_workflow.server.sent if event == "execution_error"]
        result.blocked = [data["exception_message"] for data in sent if data["exception_type"] == "ExecutionBlocked"]
        return result

    return run


def means(tensors):
    return [round(float(picture.mean()), 2) for tensor in tensors for picture in tensor]


def test_when_everything_passes_the_value_comes_out_as_it_is(gate):
    run = gate([0.6, 0.9], otherwise=True)
    assert run.success, run.error
    assert TestExpensive.ran == [("value", 2)]
    assert means(run.kept["out"]) == [0.61, 0.91]
    assert [len(tensor) for tensor in run.kept["out"]] == [2]
    assert run.kept["passed"] == [True, True]
    assert run.kept["any_passed"] == [True]


def test_when_nothing_passes_the_expensive_branch_never_runs(gate):
    run = gate([0.1, 0.2])
    assert run.success, run.error
    assert TestExpensive.ran == []
    assert "out" not in run.kept
    assert run.blocked == ["Execution Blocked: Nothing passed the gate: 20.0 < threshold 50; 10.0 < threshold 50."]
    assert run.kept["passed"] == [False, False]
    assert run.kept["any_passed"] == [False]
    assert "20.0 < threshold 50" in run.kept["report"][0]


def test_when_nothing_passes_otherwise_comes_out(gate):
    run = gate([0.1, 0.2], otherwise=True)
    assert TestExpensive.ran == [("otherwise", 2)]
    assert means(run.kept["out"]) == [0.11, 0.21]


@pytest.mark.parametrize("batch", [True, False])
def test_only_what_passes_goes_through(gate, batch):
    run = gate([0.6, 0.1, 0.9, None], batch=batch)
    assert run.success, run.error
    assert means(run.kept["out"]) == [0.61, 0.91]
    assert run.kept["passed"] == [True, False, True, False]
    assert "not scored" in run.kept["report"][0]
    assert run.blocked == []


@pytest.mark.parametrize("batch", [True, False])
def test_in_front_of_the_branch_only_what_passes_is_worked_on(gate, batch):
    run = gate([0.6, 0.1, 0.9], batch=batch, in_front=True)
    assert run.success, run.error
    assert TestExpensive.ran == [("value", 1), ("value", 1)]
    assert means(run.kept["out"]) == [0.61, 0.91]


def test_in_front_of_the_branch_nothing_passes(gate):
    run = gate([0.1], in_front=True)
    assert TestExpensive.ran == []
    assert len(run.blocked) == 1


def test_otherwise_fills_the_places_of_what_failed(gate):
    run = gate([0.6, 0.1, 0.9], otherwise=True)
    assert means(run.kept["out"]) == [0.61, 0.11, 0.91]
    assert sorted(TestExpensive.ran) == [("otherwise", 3), ("value", 3)]


def test_a_plain_number_decides_too(run_node):
    high = run_node("LatentCriticGate", {"threshold": 50.0}, score=[70.0], value=["text"])
    assert high.kept["out"] == ["text"]
    low = run_node("LatentCriticGate", {"threshold": 50.0}, score=[30.0], value=["text"])
    assert "30.0 < threshold 50" in low.blocked["out"]


def test_one_value_for_all_passes_when_any_does(run_node):
    run = run_node("LatentCriticGate", {"threshold": 50.0}, score=[70.0, 10.0], value=["text"])
    assert run.kept["out"] == ["text"]
    assert run.kept["passed"] == [True, False]


def test_latents_are_cut_like_images(run_node):
    latent = {"samples": torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 4, 2, 2)}
    run = run_node("LatentCriticGate", {"threshold": 50.0}, score=[70.0, 10.0, 60.0], value=[latent])
    assert [one["batch_index"] for one in run.kept["out"]] == [[0], [2]]
    assert [float(one["samples"].mean()) for one in run.kept["out"]] == [0.0, 2.0]


def test_bad_inputs(run_node, pack):
    records = pack("core.records")
    spec = records.ScoreSpec("ranks")
    ranks = records.ScoreBatch(spec, (records.Score(0.5, 0),))
    neither = run_node("LatentCriticGate", {"threshold": 50.0}, value=["text"])
    assert "scores or score" in neither.error
    both = run_node("LatentCriticGate", {"threshold": 50.0}, value=["text"], score=[1.0], scores=[ranks])
    assert "scores or score" in both.error
    uncalibrated = run_node("LatentCriticGate", {"threshold": 50.0}, value=["text"], scores=[ranks])
    assert "a calibrated score" in uncalibrated.error
    lengths = run_node("LatentCriticGate", {"threshold": 50.0}, value=["a", "b"], score=[70.0, 60.0, 10.0])
    assert "items in value" in lengths.error
