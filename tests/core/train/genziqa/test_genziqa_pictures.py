"""Which pictures a step of GenzIQA's training sees, at which noise, damaged how, and what is read of them."""

from dataclasses import replace

import pytest
import torch
from latent_critic.core.data.rated import RatedSet
from latent_critic.core.errors import BadInput
from PIL import Image


def test_raw_values_in_training_are_the_scorers(genziqa, backbone, rated, request_for):
    """The same picture, level and noise: what is trained is what scores later."""
    from latent_critic.core.images import load_image
    from latent_critic.core.methods.genziqa import GenzIQA
    from latent_critic.core.methods.genziqa_head import untrained

    request = request_for()
    head = untrained(backbone, request.settings, context=2, rank=2)
    images = rated.images[3:6]
    drawn = [genziqa.genziqa_data.Drawn(image, 33, request.settings.seed + 33, False) for image in images]
    latents = genziqa.genziqa_latents.Latents(backbone, request.settings)
    found = genziqa.genziqa_forward.raw_values(latents, head, drawn).tolist()
    scorer = GenzIQA(backbone, head.with_settings(timesteps=(33,)))
    expected = [score.attributes["raw"] for score in scorer.score([load_image(image.path) for image in images])]
    assert found == pytest.approx(expected, abs=1e-4)


def test_latents_are_the_scorers_and_made_once(genziqa, backbone, rated, request_for, monkeypatch):
    from latent_critic.core.images import load_image
    from latent_critic.core.methods.native_size import to_native

    settings = request_for().settings
    wanted = [
        genziqa.genziqa_latents.Wanted(image.path, mirrored)
        for image in rated.images[2:6]
        for mirrored in (False, True)
    ]
    seen, encode = [], type(backbone).encode
    monkeypatch.setattr(
        type(backbone), "encode", lambda self, x, **rest: seen.append(len(x)) or encode(self, x, **rest)
    )
    latents = genziqa.genziqa_latents.Latents(backbone, settings)
    first, again = latents.of(wanted), latents.of(wanted)
    assert sum(seen) == len(wanted)
    assert len({latent.shape for latent in first}) == 2
    for (path, mirrored, *_), latent, same in zip(wanted, first, again, strict=True):
        image = load_image(path)
        image = to_native(image, settings.shape(*image.shape[1:], backbone.family))
        expected = encode(backbone, (image.flip(-1) if mirrored else image)[None])[0]
        torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(latent, same)
    small = genziqa.genziqa_latents.Latents(backbone, settings, most_bytes=first[0].numel() * 4)
    seen.clear()
    for _ in range(2):
        small.of(wanted[:1])
        small.of(wanted[1:2])
    assert len(seen) == 3


def test_a_picture_that_cannot_be_scored_is_named(genziqa, backbone, request_for, tmp_path):
    Image.new("RGB", (6, 60)).save(tmp_path / "thin.png")
    module = genziqa.genziqa_latents
    with pytest.raises(BadInput, match=r"thin\.png"):
        module.Latents(backbone, request_for().settings).of([module.Wanted(tmp_path / "thin.png")])


def test_damage_comes_before_the_resizing(genziqa, backbone, rated, request_for):
    from latent_critic.core.data.distortions import KINDS, distort
    from latent_critic.core.images import load_image
    from latent_critic.core.methods.native_size import to_native

    module, path, settings = genziqa.genziqa_latents, rated.images[0].path, request_for().settings
    whole, harmed = module.Latents(backbone, settings).of([module.Wanted(path), module.Wanted(path, False, "jpeg", 4)])
    image = distort(load_image(path), "jpeg", 4)
    expected = backbone.encode(to_native(image, settings.shape(*image.shape[1:], backbone.family))[None])[0]
    torch.testing.assert_close(harmed, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(harmed, whole, atol=1e-2)
    plain = {kind: module.Wanted(path, False, kind, 3).load() for kind in KINDS}
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(module.Wanted(path, False, kind, 3).load(), image) for kind, image in plain.items())


def test_no_group_lies_in_two_parts(genziqa, request_for):
    (part,) = genziqa.genziqa_data.split(request_for())
    train, held, unseen = ({image.group for image in side} for side in (part.train, part.held, part.unseen))
    assert not train & held | train & unseen | held & unseen
    assert len(part.train) + len(part.held) + len(part.unseen) == 40
    assert len(part.held) > 2 < len(part.unseen)


def test_like_contents_lie_in_one_part(genziqa, request_for, rated, tmp_path):
    """Pictures without groups, each of them three times under other names: no copy lies in another part."""
    images = []
    for place, image in enumerate(rated.images[:20]):
        for copy in range(3):
            path = tmp_path / f"{place}_{copy}.png"
            path.write_bytes(image.path.read_bytes())
            images.append(replace(image, path=path, group=path.stem))
    request = request_for(data=(RatedSet("copies", tuple(images)),), content=True)
    (part,) = genziqa.genziqa_data.split(request)
    sides = [{image.path.stem.split("_")[0] for image in side} for side in (part.train, part.held, part.unseen)]
    assert sum(map(len, sides)) == 20
    assert len(list(request.run.glob("contents-*.json"))) == 1
    assert genziqa.genziqa_data.split(request) == [part]


def test_the_first_pictures_of_a_sorted_list_are_not_its_worst(genziqa, request_for, rated):
    images = tuple(replace(rated.images[0], mos=float(i), group=str(i)) for i in range(400))
    request = request_for(data=(RatedSet("sorted", images),))
    (part,) = genziqa.genziqa_data.split(request)
    assert genziqa.genziqa_data.split(request) == [part]
    every = (part.train, part.held, part.unseen)
    assert sorted(image.mos for side in every for image in side) == [float(i) for i in range(400)]
    for side in every:
        first = [image.mos for image in side[:60]]
        assert abs(sum(first) / 60 - 200) < 60
        assert min(first) < 60
        assert max(first) > 340


def test_steps_are_drawn_by_their_number(genziqa, request_for):
    data = genziqa.genziqa_data
    request = request_for(one_level=True)
    parts = data.split(request)
    assert data.draw(parts, request, 3) == data.draw(parts, request, 3)
    assert data.draw(parts, request, 3) != data.draw(parts, request, 4)
    _, drawn = data.draw(parts, request, 3)
    assert len({one.timestep for one in drawn}) == 1
    assert len({one.noise for one in drawn}) == len({one.image.path for one in drawn}) == 4
    levels = {one.timestep for step in range(40) for one in data.draw(parts, request_for(), step)[1]}
    assert levels <= set(range(100))
    assert len(levels) > 40
    assert {one.timestep for one in data.draw(parts, request_for(levels=(7,)), 0)[1]} == {7}


def test_ladders_follow_the_pictures(genziqa, request_for):
    data = genziqa.genziqa_data
    plain, request = request_for(), request_for(ladders=3)
    parts = data.split(request)
    seen = set()
    for step in range(30):
        place, drawn = data.draw(parts, request, step)
        assert (place, drawn[:4]) == data.draw(parts, plain, step)
        assert len(drawn) == 10
        for less, more in zip(drawn[4::2], drawn[5::2], strict=True):
            assert 0 <= less.severity < more.severity <= 5
            assert replace(less, severity=more.severity) == more
            seen.add(less.kind)
    assert seen == set(request.ladder_kinds)
