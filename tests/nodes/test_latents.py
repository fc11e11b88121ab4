"""Cutting latents, against ComfyUI's own Latent From Batch."""

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def latents_at_door(pack):
    return pack("nodes._latents").latents_at_door


@pytest.mark.parametrize("masks", [None, 1, 2, 5])
@pytest.mark.parametrize("index", [None, [7, 8, 9, 10, 11]])
def test_a_run_of_places_equals_comfyuis_own_cut(comfyui, latents_at_door, masks, index):
    generator = torch.Generator().manual_seed(0)
    latent = {"samples": torch.randn(5, 4, 3, 2, generator=generator), "downscale_ratio": 8}
    if masks is not None:
        latent["noise_mask"] = torch.rand(masks, 1, 24, 16, generator=generator)
    if index is not None:
        latent["batch_index"] = index
    before = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in latent.items()}
    (ours,) = latents_at_door([latent], 5).take([1, 2, 3])
    (theirs,) = comfyui.NODE_CLASS_MAPPINGS["LatentFromBatch"]().frombatch(latent, 1, 3)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        same = torch.equal(ours[name], value) if isinstance(value, torch.Tensor) else ours[name] == value
        assert same, name
    for name, value in before.items():
        assert torch.equal(latent[name], value) if isinstance(value, torch.Tensor) else latent[name] == value


def test_any_order(latents_at_door):
    latent = {"samples": torch.arange(4.0).reshape(4, 1, 1, 1)}
    (ours,) = latents_at_door([latent], 4).take([3, 0])
    assert ours["samples"].flatten().tolist() == [3, 0]
    assert ours["batch_index"] == [3, 0]


def test_video_latents_are_cut_along_the_batch_too(latents_at_door):
    latent = {"samples": torch.arange(3.0).reshape(3, 1, 1, 1, 1).expand(3, 16, 2, 4, 4)}
    (ours,) = latents_at_door([latent], 3).take([2])
    assert ours["samples"].shape == (1, 16, 2, 4, 4)
    assert ours["samples"].unique().tolist() == [2]


def test_no_places_give_no_latents(latents_at_door):
    assert latents_at_door([{"samples": torch.zeros(2, 4, 2, 2)}], 2).take([]) == []
