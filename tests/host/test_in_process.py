"""The test bed itself: a real ComfyUI, tiny models, a checkpoint through the stock loader."""

import pytest
import torch

pytestmark = pytest.mark.host


def sampling(loader, steps=2):
    """A prompt: load, encode two texts, sample, decode, keep."""
    return {
        "1": loader,
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a photo"}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ""}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 2}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "negative": ["3", 0],
                "latent_image": ["4", 0],
                "seed": 5,
                "steps": steps,
                "cfg": 4.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "TestKeep", "inputs": {"name": "images", "value": ["6", 0]}},
    }


@pytest.mark.parametrize("family", ["sd15", "sd20_v", "sdxl"])
def test_a_tiny_model_samples_through_the_real_executor(run_workflow, family):
    loader = {"class_type": "TestTinyCheckpoint", "inputs": {"family": family, "seed": 1}}
    run = run_workflow(sampling(loader))
    assert run.success, run.error
    (images,) = run.kept["images"]
    assert images.shape == (2, 64, 64, 3)
    assert torch.isfinite(images).all()
    assert images.std() > 0


def test_the_stock_loader_takes_the_checkpoint_for_sd15(run_workflow, sd15_checkpoint):
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": sd15_checkpoint}}
    run = run_workflow(sampling(loader))
    assert run.success, run.error
    assert run.kept["images"][0].shape == (2, 64, 64, 3)


def test_an_unknown_node_is_reported_not_run(run_workflow):
    run = run_workflow({"1": {"class_type": "NoSuchNode", "inputs": {}}})
    assert not run.success
    assert "NoSuchNode" in run.error
