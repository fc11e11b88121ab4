"""Ladders for training: every kind damages more at each level, names are read back, reported kinds are marked."""

from itertools import pairwise

import pytest
import torch
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.data.held_out import HELD_OUT_KINDS
from latent_critic.core.data.ladder import LEVELS, LadderKind, file_name, margin, read_ladders
from latent_critic.core.data.ladder_camera import CAMERA
from latent_critic.core.data.ladder_latent import latent_kinds
from latent_critic.core.data.ladder_scale import SCALE, hidden_factor
from latent_critic.core.data.ladder_structure import STRUCTURE
from latent_critic.core.errors import BadInput
from PIL import Image
from torch.nn import functional as F


class Pooling:
    """An autoencoder that keeps block means: encode and decode are exact on blocks."""

    def encode(self, pixels):
        return F.avg_pool2d(pixels, 4)

    def decode(self, latents):
        return F.interpolate(latents, scale_factor=4.0, mode="bilinear")


LATENT = latent_kinds(Pooling(), 4)
EVERY = (*CAMERA, *SCALE, *STRUCTURE, *LATENT)


def picture(height=64, width=80):
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 11, generator=draw)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    return (smooth * 0.7 + 0.15 + 0.08 * torch.rand(3, height, width, generator=draw)).clamp(0, 1)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: f"{kind.family}-{kind.name}")
def test_every_kind_damages_more_at_each_level(kind):
    # A small JPEG 2000 file is all header; on a small picture there is no room to repeat anything.
    image = picture(256, 256) if kind.name in ("jpeg2000", "repeated") else picture()
    begins = kind.damaged(image, 0)
    forms = [begins, *(kind.damaged(image, level, seed=3) for level in LEVELS)]
    errors = [float((form - begins).square().mean()) for form in forms]
    assert all(form.shape == image.shape and form.min() >= 0 and form.max() <= 1 for form in forms)
    assert errors[0] == 0.0
    assert all(later > earlier for earlier, later in pairwise(errors)), errors
    assert torch.equal(kind.damaged(image, 3, seed=3), forms[3]), "the same on every run"
    odd = picture(61, 67)
    assert kind.damaged(odd, 5).shape == odd.shape


def test_level_0_of_a_latent_kind_is_one_round_trip():
    image, model = picture(), Pooling()
    trip = model.decode(model.encode(image[None]))[0].clamp(0, 1)
    begun = {kind.name: kind.damaged(image, 0) for kind in LATENT}
    assert torch.equal(begun.pop("round_trips"), image)
    tiled = begun.pop("tile_seams")
    assert tiled.shape == image.shape
    assert not torch.equal(tiled, trip)
    assert all(torch.allclose(form, trip, atol=1e-5) for form in begun.values())


def test_tile_seams_show_at_the_middle():
    image = torch.full((3, 64, 64), 0.5) + 0.02 * (picture(64, 64) - 0.5)
    seams = next(kind for kind in LATENT if kind.name == "tile_seams")
    found = (seams.damaged(image, 5) - seams.damaged(image, 0)).abs()
    jump = (seams.damaged(image, 5)[:, :, 1:] - seams.damaged(image, 5)[:, :, :-1]).abs().mean(dim=(0, 1))
    assert found.max() > 0
    assert int(jump.argmax()) == 31


@pytest.mark.parametrize("kind", STRUCTURE, ids=lambda kind: kind.name)
def test_broken_structure_keeps_light_and_colour(kind):
    image = picture(256, 256)
    broken = kind.damaged(image, 5, seed=1)
    assert torch.allclose(broken.mean(dim=(1, 2)), image.mean(dim=(1, 2)), atol=0.06)
    assert float(broken.std()) == pytest.approx(float(image.std()), rel=0.25)
    assert not torch.equal(kind.damaged(image, 5, seed=2), broken)


def test_shattered_pictures_hold_no_new_pixel():
    image = torch.arange(64 * 80).view(64, 80).repeat(3, 1, 1) / 5119
    shattered = next(kind for kind in STRUCTURE if kind.name == "shattered")
    for level in LEVELS:
        assert set(shattered.damaged(image, level)[0].flatten().tolist()) <= set(image[0].flatten().tolist())


def test_what_is_reported_is_marked_and_nothing_else_shares_a_name():
    marked = {kind.name for kind in EVERY if kind.reported}
    assert {"webp", "jpeg2000"} <= marked
    plain = [kind.name for kind in EVERY if not kind.reported]
    assert not set(plain) & set(HELD_OUT_KINDS)
    assert len(set(plain)) == len(plain)
    assert {"gaussian_blur", "jpeg"} <= set(plain) & set(KINDS)


def test_the_hidden_factor():
    assert hidden_factor("bicubic", 0) == 1.0
    assert hidden_factor("bicubic", 5) == 4.0
    assert hidden_factor("sharpen", 2) is None
    assert hidden_factor("jpeg", 2) is None


def write(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)


def test_ladders_are_read_back(tmp_path):
    names = [file_name("a", "clean", "clean", 0)]
    names += [file_name("a", "camera", "jpeg", level) for level in (3, 1, 5)]
    names += [file_name("a", "latent", "latent_noise", level) for level in (0, 5)]
    names += [file_name("b", "scale", "bicubic", 1), file_name("a", "generation", "few_steps", 5)]
    write(tmp_path / "made", *names)
    ladders = {ladder[-1].kind: ladder for ladder in read_ladders(tmp_path / "made")}
    assert set(ladders) == {"jpeg", "latent_noise", "few_steps"}, "b has one picture and nothing to compare it with"
    assert [rung.level for rung in ladders["jpeg"]] == [0, 1, 3, 5]
    assert ladders["jpeg"][0].kind == "clean"
    assert ladders["latent_noise"][0].kind == "latent_noise"
    assert margin(*ladders["few_steps"]) == 1.0
    assert margin(ladders["jpeg"][0], ladders["jpeg"][1]) == pytest.approx(0.1)
    left = read_ladders(tmp_path / "made", leave_out=("camera", "generation"))
    assert [ladder[0].family for ladder in left] == ["latent"]


@pytest.mark.parametrize("names", [(), ("a-camera-jpeg-3.png",), ("holiday.png",), ("a-other-jpeg-3.png",)])
def test_a_folder_without_ladders_or_with_other_pictures_is_refused(names, tmp_path):
    write(tmp_path / "made", *names)
    with pytest.raises(BadInput, match=r"ladders|CONTENT"):
        read_ladders(tmp_path / "made")


def test_bad_levels_and_shapes():
    kind = CAMERA[0]
    assert isinstance(kind, LadderKind)
    with pytest.raises(BadInput, match="level"):
        kind.damaged(picture(), 6)
    with pytest.raises(BadInput, match="picture"):
        kind.damaged(picture()[:1], 1)
