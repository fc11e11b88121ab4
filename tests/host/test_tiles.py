"""Large pictures in tiles on a real model: the node's option, the library's, and lgdm under a head."""

import pytest
import torch

pytestmark = pytest.mark.host

SIDE = 64


@pytest.fixture
def scorer(make_backbone):
    from latent_critic.core.methods.zero_shot import ZeroShot, ZeroShotOptions

    options = ZeroShotOptions(side=SIDE, timesteps=(90,))
    return ZeroShot(make_backbone(), [("a good photo", "a bad photo")], options)


def picture(height, width):
    """Smooth at its left end, noise at its right end."""
    draw = torch.Generator().manual_seed(0)
    return (0.5 + torch.linspace(0.0, 0.4, width) * torch.randn(3, height, width, generator=draw)).clamp(0, 1)


def test_a_picture_8k_wide_is_the_mean_of_its_tiles(scorer):
    from latent_critic.core.methods.tiled import Tiled, tiles

    image = picture(SIDE, 8192)
    (found,) = Tiled(scorer).score([image])
    places = tiles(0, SIDE, 8192, SIDE)
    assert found.attributes["tiles"] == len(places) > 140
    shown = places[:: len(places) // 5]
    alone = [scorer.score([tile.of(image)])[0].value for tile in shown]
    some = [
        scorer.score([tile.of(image) for tile in places[first : first + 40]]) for first in range(0, len(places), 40)
    ]
    values = [value for batch in some for value in batch.values()]
    assert [values[place] for place in range(0, len(places), len(places) // 5)] == pytest.approx(alone, abs=1e-4)
    assert found.value == pytest.approx(sum(values) / len(values), abs=1e-4)
    assert scorer.score([image])[0].reason  # resized, it would be a few cells high


def test_a_small_picture_scores_exactly_as_before(scorer):
    from latent_critic.core.methods.tiled import Tiled

    for image in (picture(64, 64), picture(40, 60)):
        assert Tiled(scorer).score([image]).scores == scorer.score([image]).scores


@pytest.mark.parametrize("choice", ["resize", "tiles", None])
def test_the_nodes_option(pack, tiny, tiny_clip, tiny_vae, choice):
    """It is recorded; workflows that were saved without it mean resize."""
    node = pack("nodes.zero_shot").ZeroShotScorer
    given = {} if choice is None else {"large_images": choice}
    made = node.execute(tiny.model("sd15"), tiny_clip("sd15"), tiny_vae(0), "good | bad", SIDE, **given).args[0]
    found = made.score([picture(64, 150)])[0]
    assert ("tiles" in found.attributes) == (choice == "tiles")
    assert made.spec.size_policy.startswith("pictures with a side over 64 px") == (choice == "tiles")
    widget = next(one for one in node.define_schema().inputs if one.id == "large_images")
    assert widget.optional
    assert node.define_schema().inputs[-1].id == "large_images"
