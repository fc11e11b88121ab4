"""lgdm on a region: what lies outside of the mask does not move the features' pooling, and bad masks are told."""

import pytest
import torch

pytestmark = pytest.mark.host


def picture(height=64, width=64, seed=5):
    draw = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, 6, 6, generator=draw)
    return torch.nn.functional.interpolate(small, (height, width), mode="bicubic")[0].clamp(0, 1)


def block(height=64, width=64, rows=slice(0, 32), columns=slice(0, 32)):
    mask = torch.zeros(1, height, width)
    mask[:, rows, columns] = 1.0
    return mask


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kind": "single_level", "reducers": ("mean", "std", "logstd", "gmean3", "top10")},
        {"zeta1": 0.02, "zeta2": 0.02},
        {"limit": None, "position": True, "kind": "single_level"},
    ],
)
def test_a_mask_of_everything_changes_nothing(features, fields):
    found = features(**fields)
    images = [picture(), picture(70, 130), picture(40, 60)]
    plain, masked = found.extract(images), found.extract_masked(images, torch.ones(1, 64, 64))
    for one, other in zip(plain, masked, strict=True):
        scale = float(one.features.abs().max())
        torch.testing.assert_close(other.features, one.features, rtol=1e-3, atol=1e-4 * scale)


def test_pooling_is_that_of_the_region_by_hand(features, make):
    """One level, one tap, the whole view: the mean over the cells under the mask, from a plain forward."""
    from latent_critic.core.taps.reducers import full

    backbone = make()
    found = features(backbone, kind="single_level", timesteps=(40,), views=("whole",), limit=None, reducers=("mean",))
    image, mask = picture(), block()
    (one,) = found.extract_masked([image], mask)
    recorder = type(found._recorder([])).of(found.taps, full)
    z = backbone.encode(image[None])
    levels = torch.tensor([found.sigmas[0]])
    noise = backbone.noise(z.shape[1:], found.options.guidance.seed + 40)
    backbone.features(z + found.sigmas[0] * noise, levels, backbone.embed([""]), recorder)
    by_hand = []
    for tap in found.taps:
        value = recorder.rows(tap.name)[0].value
        half = value.shape[-1] // 2
        by_hand.append(value[:, :half, :half].mean((-2, -1)))
    torch.testing.assert_close(one.features, torch.cat(by_hand), rtol=1e-4, atol=1e-5)


def test_damage_outside_of_the_region_counts_less_than_inside(parts, psi, make, features, head_of):
    backbone = make()
    lgdm = parts["lgdm"].Lgdm
    head = head_of(features(backbone, zeta1=0.0, views=("whole",)))
    image, noise = picture(), 0.3 * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    inside, outside = image.clone(), image.clone()
    inside[:, :32, :32] += noise[:, :32, :32]
    outside[:, 32:, 32:] += noise[:, 32:, 32:]
    scorer = lgdm(backbone, head, psi, masks=block())
    clean, damaged, elsewhere = scorer.score([image, inside.clamp(0, 1), outside.clamp(0, 1)]).values()
    assert damaged < clean
    assert clean - damaged > 2 * abs(clean - elsewhere)


def test_masks_of_other_sizes_one_for_all_or_one_each(parts, psi, make, features, head_of):
    backbone = make()
    head = head_of(features(backbone, zeta1=0.0))
    images = [picture(), picture(seed=6)]

    def values(masks):
        return parts["lgdm"].Lgdm(backbone, head, psi, masks=masks).score(images).values()

    one = values(block())
    assert values(block()[0]) == one
    assert values(torch.cat([block(), block()])) == one
    assert values(block(32, 32, slice(0, 16), slice(0, 16))) == pytest.approx(one, abs=3.0)
    other = values(torch.cat([block(), block(rows=slice(32, 64))]))
    assert other[0] == one[0]
    assert other[1] != one[1]
    with pytest.raises(parts["errors"].BadInput, match="1 mask, or 2 for 2 images"):
        values(torch.ones(3, 64, 64))


def test_empty_and_small_regions_and_broken_pictures_are_reasons(features):
    found = features(zeta1=0.0)
    tiny = block(rows=slice(0, 3), columns=slice(0, 3))
    masks = torch.cat([block(), torch.zeros(1, 64, 64), tiny, block(), block()])
    images = [picture(), picture(), picture(), torch.full((3, 64, 64), torch.nan), picture()]
    reasons = [one.reason for one in found.extract_masked(images, masks)]
    assert reasons[0] is reasons[4] is None
    assert "empty" in reasons[1]
    assert "too small" in reasons[2]
    assert "NaN" in reasons[3]


@pytest.mark.parametrize(
    "masks", [torch.ones(1, 1, 4, 4), torch.full((1, 4, 4), 2.0), torch.full((1, 4, 4), torch.nan), "a mask"]
)
def test_what_is_no_mask_is_refused(parts, psi, make, features, head_of, masks):
    backbone = make()
    head = head_of(features(backbone, zeta1=0.0, views=("whole",), timesteps=(30,)))
    with pytest.raises(parts["errors"].BadInput, match="mask"):
        parts["lgdm"].Lgdm(backbone, head, psi, masks=masks)


def test_a_region_far_from_the_grid_of_crops_is_looked_at(features):
    """A large picture has gaps between its crops; those of a region lie over the region."""
    found = features(zeta1=0.0, views=("crops",), most_crops=1, kind="single_level")
    image = picture(64, 400)
    mask = block(64, 400, rows=slice(8, 56), columns=slice(330, 390))
    (one,) = found.extract_masked([image], mask)
    assert one.reason is None
    assert one.attributes["views"] == 1
    changed = image.clone()
    changed[:, :, :300] = 0.0
    (other,) = found.extract_masked([changed], mask)
    assert torch.equal(one.features, other.features)


def test_scores_of_other_regions_are_other_scores_and_latents_are_decoded(parts, psi, make, features, head_of):
    backbone = make()
    head = head_of(features(backbone, zeta1=0.0))
    plain, masked, other = (
        parts["lgdm"].Lgdm(backbone, head, psi, masks=mask) for mask in (None, block(), block(rows=slice(0, 40)))
    )
    told = [scorer.spec.settings.get("masks") for scorer in (plain, masked, other)]
    assert told[0] is None
    assert len(set(told)) == 3
    z = backbone.encode(picture()[None])
    assert masked.score_latents(z)[0].attributes["source"] == "decoded latents"


def test_a_part_of_a_batch_takes_its_own_masks_and_a_heat_map_takes_none(parts, psi, make, features, head_of):
    backbone = make()
    head = head_of(features(backbone, zeta1=0.0))
    masks = torch.cat([block(), block(rows=slice(32, 64)), torch.ones(1, 64, 64)])
    scorer = parts["lgdm"].Lgdm(backbone, head, psi, masks=masks)
    images = [picture(), picture(seed=6), picture(seed=7)]
    whole, first, last = (
        one.score(images[part])
        for one, part in (
            (scorer, slice(0, 3)),
            (scorer.part(0, 2, 3), slice(0, 2)),
            (scorer.part(2, 3, 3), slice(2, 3)),
        )
    )
    assert [*first.values(), *last.values()] == pytest.approx(whole.values(), abs=1e-3)
    assert first.spec == last.spec == whole.spec
    with pytest.raises(parts["errors"].BadInput, match="1 mask, or 4 for 4 images"):
        scorer.part(0, 2, 4)
    with pytest.raises(parts["errors"].BadInput, match="Disconnect the mask"):
        scorer.heat_map(images[0])
