"""The hash of what a sampler was told: the same for the same thing, another for every other."""

import importlib

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def rooms(comfyui):
    return importlib.import_module("latent_critic.core.hosts.comfyui.conditioning_hash")


def test_the_same_text_and_only_it(rooms, words):
    found = {text: rooms.of_conditioning(words(text)) for text in ("a cat", "a dog", "")}
    assert len(set(found.values())) == 3
    assert rooms.of_conditioning(words("a cat")) == found["a cat"]
    assert all(len(value) == 32 for value in found.values())


def test_a_guider_has_the_hash_of_its_positive_conditioning(rooms, racing, words, tiny_model):
    guider = racing.guided(tiny_model("sd15", 0), words("a cat"), words("a dog"))
    assert rooms.of_guider(guider) == rooms.of_conditioning(words("a cat"))
    assert rooms.of_guider(racing.guided(tiny_model("sd15", 0), words("a cat"), words(""))) == rooms.of_guider(guider)


def test_whatever_changes_the_picture_changes_the_hash(rooms):
    tensor = torch.arange(12.0).reshape(1, 3, 4)
    plain = {"pooled_output": torch.ones(1, 4)}

    def found(tensor=tensor, **options):
        return rooms.of_conditioning([[tensor, {**plain, **options}]])

    other = tensor.clone()
    other[0, 0, 0] += 1e-6
    several = [
        found(),
        found(other),
        found(tensor.half()),
        found(tensor.reshape(1, 4, 3)),
        found(pooled_output=torch.zeros(1, 4)),
        found(pooled_output=None),
        found(strength=0.7),
        found(strength=1),
        found(strength=1.0),
        found(strength=True),
        found(area=(8, 4, 0, 0)),
        found(area=[(8, 4), (0, 0)]),
        found(control=object()),
        found(name="a"),
        rooms.of_conditioning([[tensor, plain], [tensor, plain]]),
        rooms.of_conditioning([]),
    ]
    assert len(set(several)) == len(several)
    assert found(control=object()) == found(control=object())  # nothing depends on where an object lies


def test_what_has_no_hash_fails_nothing(rooms, racing, tiny_model):
    tensor, holder = torch.ones(1, 3, 4), {}
    holder["itself"] = holder
    sparse, meta = torch.eye(3).to_sparse(), torch.ones(2, device="meta")
    for value in (holder, sparse, meta, 10**5000):
        entry = [tensor, {"added": value}]
        assert rooms.of_conditioning([entry]) is None
        assert rooms.of_guider(racing.guided(tiny_model("sd15", 0), [entry], [entry])) is None
    assert rooms.of_conditioning([[sparse, {}]]) is None
    assert rooms.of_conditioning([[tensor, {}, "a third part"]]) == rooms.of_conditioning([[tensor, {}]])


def test_any_type_of_tensor(rooms):
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool):
        tensor = torch.ones(2, 3).to(dtype)
        assert rooms.of_conditioning([[tensor, {}]]) == rooms.of_conditioning([[tensor.clone(), {}]])
        assert rooms.of_conditioning([[tensor.t(), {}]]) == rooms.of_conditioning([[tensor.t().contiguous(), {}]])
    assert rooms.of_conditioning([[torch.tensor(3.0), {}]])
