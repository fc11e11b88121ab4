"""Memory of pictures in tiles, in a process of its own; and the library's option, whose policy is recorded."""

import importlib.util
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.host

MIB = 2**20


def test_memory_grows_by_the_picture_and_not_by_its_tiles():
    """By hand for 8k: `python tests/host/large_pictures.py`."""
    path = Path(__file__).with_name("large_pictures.py")
    spec = importlib.util.spec_from_file_location("latent_critic_large_pictures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tiles, peak, before, picture = module.measured(1024, 64)
    assert tiles > 300
    assert picture == 12 * MIB
    assert peak - before < picture + 8 * MIB  # copies of all tiles would be 17 MiB more


def test_the_librarys_option_scores_in_tiles_and_records_its_policy(comfyui, tiny, tiny_pipelines):
    from latent_critic import Scorer
    from latent_critic.core.methods.tiled import tiles

    pipe = tiny_pipelines.pipeline("sd15", tiny.model("sd15"), tiny.vae(0))
    image = torch.rand(3, 64, 150, generator=torch.Generator().manual_seed(0))
    resized, tiled = Scorer.from_pipeline(pipe, side=64), Scorer.from_pipeline(pipe, side=64, tiles=True)
    whole, batch = resized.score([image]), tiled.score([image, image[:, :, :64]])
    places = tiles(0, 64, 150, 64)
    values = [resized.score([tile.of(image)])[0].value for tile in places]
    assert batch[0].value == pytest.approx(sum(values) / len(values), abs=1e-4)
    assert batch[0].attributes["tiles"] == len(places) == 3
    assert "tiles" not in batch[1].attributes
    assert batch[1].value == pytest.approx(resized.score([image[:, :, :64]])[0].value, abs=1e-5)
    policy = "pictures with a side over 64 px: native-scale tiles of the area of 64×64 px"
    assert batch.spec.size_policy.startswith(policy)
    assert tiled.spec == batch.spec
    assert batch.spec.settings["large_images"] == "tiles"
    assert "native-scale tiles" not in whole.spec.size_policy
    assert batch.spec.digest != whole.spec.digest
    assert "native-scale tiles" in str(batch.to_dict())
