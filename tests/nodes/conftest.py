"""Graphs around one of our nodes: values go in, and what comes out of every output is kept."""

import itertools
from dataclasses import replace

import pytest
import torch


class AnyType(str):
    def __ne__(self, other):
        return False

    __hash__ = str.__hash__


class TestGive:
    """Hands any Python values to a graph, as a list (one value is an ordinary output)."""

    RETURN_TYPES = (AnyType("*"),)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "give"
    CATEGORY = "tests"
    values = {}  # noqa: RUF012 (one store for the test process, filled by the fixture)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"key": ("STRING", {})}}

    def give(self, key):
        return (self.values[key],)


class TestScorerSource(TestGive):
    """Hands out a scorer of the running test."""

    RETURN_TYPES = ("LC_SCORER",)
    OUTPUT_IS_LIST = (False,)
    values = {}  # noqa: RUF012 (as above)


class BrightnessScorer:
    """A pure scorer: 100 times the mean pixel. Broken images get a reason; ``watch`` is called after each image."""

    def __init__(self, pack, **spec):
        self.records, self.images = pack("core.records"), pack("core.images")
        settings = {"name": "brightness", "scale": (0.0, 100.0), "calibrated_on": "photographs", **spec}
        self.spec = self.records.ScoreSpec(**settings)
        self.calls = []

    def score(self, images, prompts=None, *, watch=None):
        found = self.images.as_list(images)
        self.calls.append((len(found), prompts))
        scores = []
        for index, image in enumerate(found):
            reason = self.images.reason_unscorable(image)
            value = None if reason else 100 * float(image.mean())
            scores.append(self.records.Score(value, index, reason=reason))
            if watch:
                watch(index + 1, len(found))
        return self.records.ScoreBatch(self.spec, tuple(scores))


@pytest.fixture(autouse=True)
def history_off(monkeypatch):
    """No test depends on what earlier ones scored; those about the history switch it on."""
    monkeypatch.setenv("LATENT_CRITIC_HISTORY", "off")


@pytest.fixture
def scorer(pack):
    """Builds the brightness scorer, with other fields of its spec where wanted."""
    return lambda **spec: BrightnessScorer(pack, **spec)


@pytest.fixture
def scorers(comfyui, scorer):
    """What the node TestScorerSource hands out by its `key`: under "it" the brightness scorer at first."""
    comfyui.NODE_CLASS_MAPPINGS.setdefault("TestScorerSource", TestScorerSource)
    TestScorerSource.values["it"] = scorer()
    yield TestScorerSource.values
    TestScorerSource.values.clear()


@pytest.fixture
def pictures():
    """Makes a batch [N, H, W, 3] whose images have these mean brightnesses; ``None`` is a NaN image."""

    def make(levels, height=32, width=40):
        generator = torch.Generator().manual_seed(0)
        grain = torch.rand(height, width, 3, generator=generator) * 0.02 - 0.01
        grain -= grain.mean()
        return torch.stack([torch.full_like(grain, float("nan")) if v is None else grain + v for v in levels])

    return make


@pytest.fixture
def run_node(comfyui, run_workflow):
    """Run one node in the real executor: `run_node(id, widgets, images=[…], …)`.

    Keyword arguments are linked inputs, each the list that arrives. Gives the Run, with every output in `kept` under
    its schema id; a blocked output is missing there, and its reason is in `blocked`.
    """
    comfyui.NODE_CLASS_MAPPINGS.setdefault("TestGive", TestGive)
    numbers = itertools.count()

    def run(node_id, widgets=None, **linked):
        prompt = {"node": {"class_type": node_id, "inputs": dict(widgets or {})}}
        for name, values in linked.items():
            key = f"{name} {next(numbers)}"
            TestGive.values[key] = list(values)
            prompt[name] = {"class_type": "TestGive", "inputs": {"key": key}}
            prompt["node"]["inputs"][name] = [name, 0]
        schema = comfyui.NODE_CLASS_MAPPINGS[node_id].GET_SCHEMA()
        for place, output in enumerate(schema.outputs):
            keep = {"name": output.id, "value": ["node", place]}
            prompt[f"keep {output.id}"] = {"class_type": "TestKeep", "inputs": keep}
        sent = run_workflow.server.sent
        before = len(sent)
        result = run_workflow(prompt)
        result.ui = result.outputs.get("node", {})
        result.blocked = {
            data["node_id"].removeprefix("keep "): data["exception_message"]
            for event, data in sent[before:]
            if event == "execution_error" and data["exception_type"] == "ExecutionBlocked"
        }
        return result

    yield run
    TestGive.values.clear()


@pytest.fixture(scope="session")
def as_trained():
    """`as_trained(head, **meta)` → an untrained head with the facts of a trained one."""

    def told(head, **changes):
        facts = {"calibrated_on": "photographs", "scale": (0.0, 100.0), "training_set": "a set", "pictures": 9}
        validation = {"srcc": 0.5, "srcc_low": 0.25, "srcc_high": 0.75, "n": 40}
        return replace(head, meta=replace(head.meta, **{**facts, "validation": validation, **changes}))

    return told


@pytest.fixture(scope="session")
def judged():
    """`judged(node, width, nan, parts)` → a graph: three noise pictures, one of them spoilt, scored by a scorer's node.

    `parts`: the tiny checkpoint (family and seed) whose model, text encoder and VAE are linked to it; none where empty.
    """

    def graph(node, width=64, nan=-1, **parts):
        linked = {name: ["1", place] for place, name in enumerate(("model", "clip", "vae"))} if parts else {}
        found = {
            "2": {**node, "inputs": {**linked, **node["inputs"]}},
            "3": {
                "class_type": "TestNoisePictures",
                "inputs": {"count": 3, "width": width, "height": 64, "seed": 3, "nan": nan},
            },
            "4": {"class_type": "LatentCriticScoreImages", "inputs": {"images": ["3", 0], "scorer": ["2", 0]}},
            "5": {"class_type": "TestKeep", "inputs": {"name": "report", "value": ["2", 1]}},
        }
        if parts:
            found["1"] = {"class_type": "TestTinyCheckpoint", "inputs": parts}
        return found

    return graph
