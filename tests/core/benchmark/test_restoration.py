"""The report on a restorer: what is compared, apart by what training saw, with intervals."""

import json

import pytest
import torch
from latent_critic.core.benchmark.restoration import measure_restorer
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.data.held_out import HELD_OUT_KINDS
from latent_critic.core.data.similarity import psnr
from latent_critic.core.errors import BadInput
from latent_critic.core.images import load_image, to_picture
from latent_critic.core.perceptual.judge import JudgePsi
from latent_critic.core.restoration.contract import Restored


class Halfway:
    """A made-up restorer that knows the originals and goes half of the way to them; every seventh has a reason."""

    name, identity = "halfway", {}

    def __init__(self, originals, share=0.5, broken=False):
        self.originals, self.share, self.broken, self.seen = originals, share, broken, 0

    def restore(self, images, *, watch=None):
        reasons = []
        out = images.clone()
        for place, image in enumerate(images):
            near = min(self.originals, key=lambda original: float((original - image).abs().mean()))
            out[place] = image + self.share * (near - image)
            self.seen += 1
            reasons.append("broken" if self.broken and self.seen % 7 == 0 else None)
        return Restored(torch.stack([out] * 3, 1), (0.0, 0.1, 0.2), (1,) * len(out), tuple(reasons))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    generator = torch.Generator().manual_seed(0)
    for place in range(3):
        # Flat colours apart, so that a damaged one is still nearest to its own original.
        field = torch.nn.functional.interpolate(torch.rand((1, 3, 4, 4), generator=generator), (40, 48), mode="bicubic")
        to_picture((0.2 * field[0] + 0.1 + 0.3 * place).clamp(0, 1)).save(folder / f"{place}.png")
    return sorted(folder.glob("*.png"))


@pytest.fixture(scope="module")
def originals(pictures):
    return [load_image(path)[:, 4:36, 8:40] for path in pictures]


def _rows(pictures, restorer, **settings):
    return measure_restorer(pictures, restorer, JudgePsi.load(), side=32, severities=(1, 3), resamples=50, **settings)


def test_half_of_the_way_is_six_decibels(pictures, originals):
    """On the mildest damage of one kind alone the gain is 20 log10 2, for every picture."""
    rows = {row.kinds: row for row in _rows(pictures, Halfway(originals))}
    assert set(rows) == {"seen", "not seen", *KINDS, *HELD_OUT_KINDS}
    assert rows["seen"].n == 2 * len(KINDS) * len(pictures)
    assert rows["not seen"].n == 2 * len(HELD_OUT_KINDS) * len(pictures)
    row = rows["gaussian_blur"]
    assert row.psnr_gain == pytest.approx((6.02, 6.02, 6.02), abs=0.3)
    assert row.nearer[0] == 1.0
    gain, low, high = rows["seen"].psi_gain
    assert low <= gain <= high
    assert rows["seen"].psi[0] - rows["seen"].psi[1] == pytest.approx(gain)
    assert rows["seen"].to_dict()["psnr_gain"][0] == rows["seen"].psnr_gain[0]


def test_kinds_that_training_left_out_are_not_seen(pictures, originals):
    rows = {row.kinds: row for row in _rows(pictures[:1], Halfway(originals), trained_on=("jpeg",))}
    assert rows["jpeg"].seen
    assert not rows["white_noise"].seen
    assert rows["seen"].n == 2
    assert rows["not seen"].n == 2 * (len(KINDS) - 1 + len(HELD_OUT_KINDS))


def test_pictures_of_one_content_are_drawn_together(pictures, originals):
    """Three frames of one video are one content: drawn again and again, they give the same mean."""

    def ends(contents):
        rows = _rows(pictures, Halfway(originals), contents=contents)
        return next(row.psnr_gain for row in rows if row.kinds == "not seen")

    apart, paired, one = ends(None), ends(["a", "b", "a"]), ends(["a", "a", "a"])
    assert apart[0] == paired[0] == one[0]
    assert apart == ends(["x", "y", "z"]) != paired
    assert one == pytest.approx((one[0],) * 3)
    with pytest.raises(BadInput, match="one per picture"):
        ends(["a"])


@pytest.mark.parametrize("by_content", [False, True])
def test_the_command_spreads_pictures_and_names_contents(pictures, monkeypatch, tmp_path, by_content):
    from latent_critic.core.benchmark import restoration
    from latent_critic.core.cli.main import main

    rows = [
        {"file": str(path), "source": "web", "path": f"cat-{1 + place // 2}.mp4", "held_back": True}
        for place, path in enumerate([*pictures, tmp_path / "3.png"])
    ]
    to_picture(load_image(pictures[0])).save(tmp_path / "3.png")
    (tmp_path / "manifest.json").write_text(json.dumps({"pictures": rows}))
    asked = {}
    monkeypatch.setattr(
        restoration, "measure_restorer", lambda paths, *_, contents, **__: asked.update(at=paths, of=contents) or []
    )
    more = ["--by-content"] if by_content else []
    told = ["train", "restorer-check", "--pictures", str(tmp_path), "--side", "32", "--limit", "2", "--json", *more]
    assert main(told) == 0
    assert [path.stem for path in asked["at"]] == (["0", "2"] if by_content else ["0", "1"])
    assert (asked["of"] is None) == (not by_content)
    assert not by_content or asked["of"][0] == asked["of"][1]


def test_pictures_without_a_restoration_are_counted_apart(pictures, originals):
    rows = {row.kinds: row for row in _rows(pictures, Halfway(originals, broken=True))}
    assert rows["seen"].missing + rows["not seen"].missing == 2 * 21 * 3 // 7


def test_small_pictures_are_refused(pictures, originals):
    with pytest.raises(BadInput, match="from 64 pixels"):
        measure_restorer(pictures, Halfway(originals), JudgePsi.load(), side=64)


def test_psnr_against_its_definition():
    one, other = torch.rand(2, 3, 5, 7), torch.rand(2, 3, 5, 7)
    errors = ((one - other) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(psnr(one, other).float(), 10 * torch.log10(1 / errors))
    assert psnr(one, one).tolist() == pytest.approx([100.0, 100.0])
