"""DP-IQA's networks against diffusers' own adapter, against plain functional calls, against the published counts."""

import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.methods.dp_iqa_head import DpNets, DpShape
from latent_critic.core.methods.dp_iqa_words import DISTORTIONS, QUALITIES, SCENES, sentences
from latent_critic.core.nets.dp_iqa_adapters import ImageAdapter, TextAdapter
from latent_critic.core.nets.dp_iqa_decoder import DecoderShape, QualityDecoder, to_grid
from torch.nn import functional as F


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_sequence_has_the_published_sentences():
    listed = sentences()
    assert (len(QUALITIES), len(SCENES), len(DISTORTIONS)) == (5, 9, 33)
    assert len(set(listed)) == len(listed) == 1485
    assert listed[0] == "a photo of a animal with jpeg2000 compression artifacts, which is of bad quality"
    assert "a photo of a still_life with white noise with denoise artifacts, which is of perfect quality" in listed


def test_published_sizes_have_the_published_number_of_parameters():
    """981.0 M are trained: these, and the 859.52 M of SD 1.5's U-Net."""
    decoder = DecoderShape((1280, 1280, 640, 320))
    with torch.device("meta"):
        nets = DpNets(DpShape(decoder, 768, 768, (320, 640, 1280, 1280)))
    assert round((count(nets) + 859_520_964) / 1e6, 1) == 981.0
    assert nets.QFD.fc1.in_features == 32768


def test_the_image_adapter_is_diffusers_full_adapter(diffusers):
    theirs = diffusers.T2IAdapter(channels=[32, 64, 128, 128], adapter_type="full_adapter").eval()
    ours = ImageAdapter((32, 64, 128, 128))
    ours.load_state_dict(theirs.adapter.state_dict())
    pixels = torch.rand(2, 3, 72, 40)
    with torch.no_grad():
        found, expected = ours(pixels), theirs(pixels)
    assert [tuple(a.shape) for a in found] == [tuple(b.shape) for b in expected]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))


def test_a_narrow_image_adapter_changes_nothing_before_training():
    adapter = ImageAdapter((32, 64), factor=8, width=4)
    assert [tuple(r.shape) for r in adapter(torch.rand(1, 3, 16, 24))] == [(1, 32, 2, 3), (1, 64, 1, 2)]
    assert all(not r.any() for r in adapter(torch.rand(1, 3, 16, 24)))


def test_the_text_adapter_begins_nearly_at_the_text():
    adapter, tokens = TextAdapter(16), torch.randn(5, 16)
    inner = F.gelu(F.linear(tokens, adapter.fc[0].weight, adapter.fc[0].bias))
    expected = tokens + 1e-4 * F.linear(inner, adapter.fc[2].weight, adapter.fc[2].bias)
    assert torch.allclose(adapter(tokens), expected, atol=1e-7)


@pytest.mark.parametrize("cells", [8, 4])
def test_the_decoder_is_its_description(cells):
    """The same sums written once more, without modules."""
    shape = DecoderShape((12, 8), width=16, squeeze=4, thin=(6, 3), grid=8, cells=cells, hidden=10)
    decoder = QualityDecoder(shape).eval()
    decoder.standardise([torch.randn(12), torch.randn(8)], [torch.rand(12) + 0.5, torch.rand(8) + 0.5])
    p = decoder.state_dict()
    maps = [to_grid(torch.randn(3, 12, 4, 6), 8), to_grid(torch.randn(3, 8, 8, 8), 8)]

    def gate(x, name):
        low = F.relu(x.mean((2, 3)) @ p[f"{name}.fc.0.weight"].T)
        return x * torch.sigmoid(low @ p[f"{name}.fc.2.weight"].T)[..., None, None]

    parts = []
    for place, values in enumerate(maps, 1):
        x = (values - p[f"centre{place}"].view(-1, 1, 1)) * p[f"scale{place}"].view(-1, 1, 1)
        parts.append(gate(F.conv2d(x, p[f"conv{place}.weight"], p[f"conv{place}.bias"], padding=1), f"se{place}"))
    x = gate(F.conv2d(torch.cat(parts, 1), p["fuse_conv.weight"], p["fuse_conv.bias"], padding=1), "se_fuse")
    for place in (1, 2):
        x = F.relu(F.conv2d(x, p[f"conv_score{place}.weight"], p[f"conv_score{place}.bias"]))
    flat = F.adaptive_avg_pool2d(x, cells).flatten(1)
    hidden = F.relu(F.linear(F.relu(F.linear(flat, p["fc1.weight"], p["fc1.bias"])), p["fc2.weight"], p["fc2.bias"]))
    expected = F.linear(hidden, p["fc3.weight"], p["fc3.bias"])[:, 0]
    with torch.no_grad():
        score, quality = decoder(*maps)
    assert torch.allclose(score, expected, atol=1e-5)
    assert torch.allclose(quality, x, atol=1e-5)


def test_maps_are_enlarged_as_published():
    values = torch.randn(1, 2, 16, 16)
    assert torch.allclose(to_grid(values, 64), F.interpolate(values, size=64, mode="bicubic"), atol=1e-6)


@pytest.mark.parametrize("wrong", [{"grid": 8, "cells": 3}, {"channels": ()}, {"squeeze": 1000}, {"kernel": 5}])
def test_bad_shapes(wrong):
    with pytest.raises(BadInput, match="Expected"):
        DecoderShape(**{"channels": (4,), **wrong})
