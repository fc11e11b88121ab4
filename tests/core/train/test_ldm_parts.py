"""The parts of the training, each against something independent of it."""

import json

import pytest
import torch
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.nets import critic_ldm
from PIL import Image


def test_the_noise_schedule_is_diffusers(ldm, diffusers):
    config = ldm.bundle._SCHEDULER
    reference = diffusers.DDIMScheduler.from_config(config).alphas_cumprod
    torch.testing.assert_close(ldm.denoiser.signal_shares().float(), reference, rtol=1e-5, atol=1e-7)


def test_min_snr_weights(ldm):
    shares = torch.tensor([0.5, 0.9, 0.01], dtype=torch.float64)  # signal to noise 1, 9, about 0.0101
    torch.testing.assert_close(ldm.denoiser.loss_weight(shares), torch.tensor([1.0, 5 / 9, 1.0]).double())


def test_every_kind_of_damage_has_words(ldm):
    assert set(ldm.captions.WORDS) == set(KINDS)


def test_captions_name_damage_degree_and_content(ldm):
    def caption(severity, seed):
        return ldm.captions.caption("gaussian_blur", severity, "landscape", torch.Generator().manual_seed(seed))

    words = ldm.captions.WORDS["gaussian_blur"]
    for seed in range(30):
        clean, light, heavy = caption(0, seed), caption(1, seed), caption(5, seed)
        assert all("landscape" in text for text in (clean, light, heavy))
        assert not any(word in clean for word in words)
        assert any(f"{degree} {word}" in light for degree in ("slightly", "a bit") for word in words)
        assert "extremely" in heavy
        assert any(bad in heavy for bad in ldm.captions.BAD)
        assert any(good in clean for good in ldm.captions.GOOD)


def test_the_vocabulary_is_clips(diffusers):
    from latent_critic.core.hosts.diffusers.embedded import make_tokenizer

    merges = critic_ldm.read_merges(critic_ldm.SHIPPED)
    assert len(critic_ldm.vocabulary(merges)) == 49408
    tokenizer = make_tokenizer(merges)
    # CLIP's published ids of this sentence
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    padded = tokenizer("a", padding="max_length").input_ids
    assert len(padded) == 77
    assert set(padded[2:]) == {49407}


def test_residual_blocks_begin_as_identities(ldm, sizes):
    vae = ldm.models.build(sizes, seed=1).vae
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        for shallow, deep in zip(
            (ldm.autoencoder.encode(vae, images, 4), ldm.autoencoder.decode(vae, torch.ones(1, 8, 4, 4), 2)),
            (ldm.autoencoder.encode(vae, images), ldm.autoencoder.decode(vae, torch.ones(1, 8, 4, 4))),
            strict=True,
        ):
            torch.testing.assert_close(shallow, deep)


def test_encode_and_decode_are_diffusers_own(ldm, sizes):
    vae = ldm.models.build(sizes, seed=2).vae
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        latents = vae.encode(images * 2 - 1).latents
        torch.testing.assert_close(ldm.autoencoder.encode(vae, images), latents)
        torch.testing.assert_close(ldm.autoencoder.decode(vae, latents) * 2 - 1, vae.decode(latents).sample)


def test_building_leaves_the_callers_random_state_alone(ldm, sizes):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = ldm.models.build(sizes, seed=3), ldm.models.build(sizes, seed=3)
    torch.testing.assert_close(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.unet.parameters(), second.unet.parameters(), strict=True))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.5, 1.0), (0.0, 0.3), (-1.0, 2.0)])
def test_the_spread_penalty_is_the_divergence_from_a_standard_normal(ldm, mean, deviation):
    draw = torch.randn(4, 2, 64, 64, generator=torch.Generator().manual_seed(0)) * deviation + mean
    there = torch.distributions.Normal(torch.tensor(mean), torch.tensor(deviation))
    expected = torch.distributions.kl_divergence(there, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(ldm.autoencoder.spread_penalty(draw), expected, rtol=0.05, atol=0.01)


def test_crops_repeat_with_their_seed_and_stay_in_range(ldm, pictures):
    collection = ldm.pictures.load_collection(pictures, least=32)
    draw = [ldm.pictures.random_crops(collection.train, 3, 32, ldm.pictures.step_generator(0, s)) for s in (7, 7, 8)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    assert draw[0].shape == (3, 3, 32, 32)
    assert 0 <= float(draw[0].min()) <= float(draw[0].max()) <= 1 + 1e-6


def test_held_back_pictures_are_not_trained_on(ldm, pictures):
    collection = ldm.pictures.load_collection(pictures, least=32)
    train, held = ({picture.name for picture in part} for part in (collection.train, collection.held_back))
    assert held
    assert not train & held
    assert len(train | held) == 12


def test_held_back_pictures_know_their_contents(ldm, tmp_path):
    """Frames of one video, and pictures that a source numbers, share a content; the spread takes all sources."""
    listed = [
        ("examples", "fox.png"), ("kodak", "d/05.png"), ("kodak", "d/10.png"), ("web", "t/cat-1.mp4"),
        ("web", "t/cat-1.mp4"), ("web", "t/dog-1.png"), ("web", "t/dog-2.png"), ("other", "t/dog-1.png"),
    ]  # fmt: skip
    rows = [
        {"source": source, "path": path, "file": f"{place}.png", "held_back": True}
        for place, (source, path) in enumerate(listed)
    ]
    for row in rows:
        Image.new("RGB", (40, 40)).save(tmp_path / str(row["file"]))
    Image.new("RGB", (9, 40)).save(tmp_path / "small.png")
    small = {**rows[0], "file": "small.png"}
    (tmp_path / "manifest.json").write_text(json.dumps({"pictures": [*rows, small, {**small, "held_back": False}]}))
    held = ldm.pictures.held_back_paths(tmp_path, least=32)
    contents = list(held.values())
    assert [path.name for path in held] == [row["file"] for row in rows]
    assert [contents.index(content) for content in contents] == [0, 1, 2, 3, 3, 5, 5, 7]
    assert [path.stem for path in ldm.pictures.some_of(list(held), 4)] == ["0", "2", "4", "6"]
    (tmp_path / "manifest.json").unlink()
    plain = ldm.pictures.held_back_paths(tmp_path, least=1)
    assert [path.name for path in plain] == list(plain.values())


def test_a_share_of_the_levels_is_drawn_where_quality_is_read(ldm):
    generator = torch.Generator().manual_seed(0)
    alike, low = (ldm.denoiser.draw_levels(4000, share, generator) for share in (0.0, 0.5))
    assert int(alike.max()) > 900
    assert (alike < 200).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert (low < 200).float().mean().item() == pytest.approx(0.6, abs=0.03)
    assert int(ldm.denoiser.draw_levels(4000, 1.0, generator).max()) < 200
