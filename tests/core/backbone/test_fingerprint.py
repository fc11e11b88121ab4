"""The sketch of a checkpoint: the same through every dtype, another for other weights."""

import math
import random

import pytest
import torch
from latent_critic.core.backbone.fingerprint import TENSORS, VALUES, Fingerprint, places, sketch
from latent_critic.core.errors import BadInput


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {f"block.{i}.weight": torch.randn(40, 30, generator=generator) * 0.03 * (i + 1) for i in range(40)}


def taken(tensors, **rest):
    shapes = [(name, tensor.numel()) for name, tensor in tensors.items()]
    return Fingerprint("sd15", sketch(shapes, lambda name, where: tensors[name].flatten()[where].tolist()), **rest)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_copies_match(dtype):
    copy = {name: tensor.to(dtype).float() for name, tensor in weights().items()}
    assert taken(weights()).matches(taken(copy))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8_copies_match_also_with_a_scale(dtype):
    plain = {name: tensor.to(dtype).float() for name, tensor in weights().items()}
    scaled = {name: (tensor * 448 / tensor.abs().max()).to(dtype).float() for name, tensor in weights().items()}
    assert taken(weights()).matches(taken(plain, coarse=True))
    assert taken(scaled, coarse=True).matches(taken(weights()))


def test_other_checkpoints_differ():
    assert not taken(weights()).matches(taken(weights(1)))
    tuned = {name: tensor + 0.05 * tensor.std() * torch.randn(tensor.shape) for name, tensor in weights().items()}
    assert not taken(weights()).matches(taken(tuned))
    assert taken(weights()).distance(taken(weights(1))) > 1.0


def test_family_and_emptiness_never_match():
    one = taken(weights())
    assert not one.matches(Fingerprint("sdxl", one.sketch))
    assert not Fingerprint("sd15", ()).matches(Fingerprint("sd15", ()))
    assert math.isinf(one.distance(Fingerprint("sd15", one.sketch[:5])))


def test_patches_do_not_part_a_match():
    assert taken(weights(), patched=True).matches(taken(weights()))


def test_text_and_back():
    one = taken(weights(), patched=True, coarse=True)
    text = one.to_text()
    assert len(text) < 800
    assert "\n" not in text
    back = Fingerprint.from_text(text)
    assert (back.family, back.patched, back.coarse) == ("sd15", True, True)
    assert back.matches(taken(weights()))
    assert back.distance(one) < 1e-3
    assert Fingerprint.from_text(back.to_text()) == back


@pytest.mark.parametrize("text", ["", "sd15", "lc9:sd15::AAAA", "lc1:sd15::***"])
def test_damaged_text_is_refused(text):
    with pytest.raises(BadInput, match="fingerprint"):
        Fingerprint.from_text(text)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 60])
def test_places_lie_inside_and_do_not_depend_on_order(count):
    draw = random.Random(count)
    shapes = {f"layer.{number}": draw.choice([1, 2, 15, 16, 17, 10**7]) for number in range(count)}
    found = places(shapes.items())
    assert found == places(reversed(list(shapes.items())))
    assert len(found) == min(TENSORS, count)
    assert len({name for name, _ in found}) == len(found)
    for name, where in found:
        assert len(where) == VALUES
        assert 0 <= min(where) <= max(where) < shapes[name]
