"""DiffV2IQA as a scorer: a real small head over a restorer that blurs, over the judge's CNN and over a small ViT."""

from dataclasses import replace

import pytest
import torch
from latent_critic.core.errors import BadInput, MismatchedBackbone, UnreadableFile
from latent_critic.core.heatmap import badness
from latent_critic.core.methods.contract import MapScorer
from latent_critic.core.methods.diff_v2_iqa import DiffOptions, DiffV2IQA
from latent_critic.core.methods.diff_v2_iqa_eyes import EyeFiles, load_eyes, weights_digest
from latent_critic.core.methods.diff_v2_iqa_file import is_diff_v2, load_diff_v2, save_diff_v2
from latent_critic.core.methods.diff_v2_iqa_head import untrained
from latent_critic.core.methods.diff_v2_iqa_settings import PUBLISHED, DiffSettings
from latent_critic.core.nets.diff_v2 import PLAN, DiffShape
from latent_critic.core.nets.diff_v2_eyes import JUDGE_MAPS, DiffEyes
from latent_critic.core.nets.diff_v2_resnet import ResNet
from latent_critic.core.nets.diff_v2_vit import VisionTransformer, VitShape
from latent_critic.core.restoration.contract import Restored
from latent_critic.core.restoration.sr3 import Sr3Options, Sr3Restorer
from safetensors.torch import save_file
from torch.nn import functional as F

JUDGE = DiffSettings(side=96)
VIT = VitShape(side=32, patch=8, width=12, depth=4, heads=2)
SMALL = DiffSettings(side=32, patches="vit", blocks=(0, 1, 2, 3), vit=VIT)


class Blur:
    """A restorer that smooths: d0 the picture of 2×2 means, d1 and d2 coarser. Counts its pictures."""

    name = "blur"

    def __init__(self, strength=1.0, broken=None, spoil=None):
        self.strength, self.broken, self.spoil, self.pictures = strength, broken, spoil, 0

    @property
    def identity(self):
        return {"strength": str(self.strength)}

    def restore(self, images, *, watch=None):
        self.pictures += len(images)
        found = []
        for place, size in enumerate((2, 4, 8)):
            low = F.interpolate(F.avg_pool2d(images, size), images.shape[-2:], mode="bilinear")
            found.append(images + self.strength * (low - images))
            if watch is not None:
                watch(place + 1, 3)
        rows = torch.stack(found, 1)
        reasons = [None] * len(images)
        for row, picture in enumerate(images):
            if self.broken is not None and float(picture.mean()) < self.broken:
                rows[row] = float("nan")
            if self.spoil is not None and float(picture.mean()) < self.spoil:
                reasons[row] = "the blur gave up"
        return Restored(rows, (0.04, 0.2, 0.35), (3,) * len(images), tuple(reasons))


def made(settings=JUDGE, restorer=None, facts=(), options=None, own_vit=False, seed=0, **shape):
    restorer = restorer or Blur()
    first = untrained(settings, own_vit=own_vit, seed=seed)
    eyes = load_eyes(settings, vit=first.vit)
    narrow = DiffShape.narrow(settings.maps, settings.features, settings.grid, **shape)
    head = untrained(settings, narrow, restorer=restorer, eyes=eyes.identity, own_vit=own_vit, seed=seed)
    head.nets.begin_at(0.5)
    told = {"calibrated_on": "photographs", "scale": (0.0, 100.0), "centre": 50.0, **dict(facts)}
    head = replace(head, meta=replace(head.meta, **told))
    eyes = load_eyes(settings, vit=head.vit)
    return DiffV2IQA(restorer, head, eyes, options), head


@pytest.fixture(scope="module")
def pictures():
    draw = torch.Generator().manual_seed(3)
    return [
        F.interpolate(torch.rand(1, 3, 9, 9, generator=draw), (100, 140), mode="bicubic")[0].clamp(0, 1),
        torch.rand(3, 128, 96, generator=draw),
        0.2 * torch.rand(3, 70, 70, generator=draw),
    ]


@pytest.mark.parametrize("views", ["whole", "crops", "both"])
@pytest.mark.parametrize("settings", [JUDGE, SMALL], ids=["judge", "vit"])
def test_scores_know_neither_order_nor_company(pictures, settings, views):
    settings = replace(settings, views=views, most_crops=3)
    scorer, _ = made(settings, own_vit=settings.vit is not None, options=DiffOptions(most_rows=2))
    together = scorer.score(pictures)
    values = together.values()
    assert all(value is not None and 0.0 < value < 100.0 for value in values)
    assert len(set(values)) == 3
    assert scorer.score(pictures).values() == values
    for place, picture in enumerate(pictures):
        assert scorer.score([picture])[0].value == pytest.approx(values[place], abs=1e-3)
    assert together.spec.calibrated_on == "photographs"


def test_calls_and_shares_are_told(pictures):
    scorer, head = made(replace(JUDGE, views="both", most_crops=2))
    score = scorer.score(pictures[:1])[0]
    assert score.attributes["views"] == 3
    assert score.attributes["denoiser_calls"] == 9
    assert score.attributes["noise_levels"] == [0.04, 0.2, 0.35]
    assert score.value == pytest.approx(score.attributes["vcg"] + score.attributes["vda"], abs=1e-3)
    assert head.nets.shape.weight == 5.0


def test_nothing_changes_where_the_restorer_changes_nothing(pictures):
    """Differences are zero, and so is the change."""
    scorer, _ = made(restorer=Blur(0.0))
    score = scorer.score(pictures[:1])[0]
    assert score.attributes["change"] == 0.0
    still, _ = made(restorer=Blur(1.0))
    assert still.score(pictures[:1])[0].attributes["change"] > 0.1


def test_the_change_grows_with_what_the_restorer_takes_away():
    draw = torch.Generator().manual_seed(1)
    clean = F.interpolate(torch.rand(1, 3, 5, 5, generator=draw), (96, 96), mode="bicubic")[0].clamp(0.2, 0.8)
    noise = torch.randn(3, 96, 96, generator=draw)
    scorer, _ = made()
    found = scorer.score([(clean + level * noise).clamp(0, 1) for level in (0.0, 0.03, 0.08, 0.15)])
    changes = [score.attributes["change"] for score in found]
    assert changes == sorted(changes)
    assert changes[-1] > 3 * changes[0]


@pytest.mark.parametrize("branch", ["vcg", "vda"])
def test_a_branch_alone(pictures, branch):
    scorer, head = made(branch=branch)
    score = scorer.score(pictures[:1])[0]
    assert set(score.attributes) & {"vcg", "vda"} == {branch}
    assert head.nets.shape.branch == branch
    if branch == "vda":
        with pytest.raises(BadInput, match="VDA alone"):
            scorer.heat_map(pictures[0])


def test_bad_pictures_get_reasons_and_spoil_no_other(pictures):
    scorer, _ = made()
    expected = scorer.score([pictures[0]])[0].value
    bad = [
        torch.rand(3, 20, 200),  # smaller than a patch
        torch.full((3, 64, 64), float("nan")),
        torch.rand(3, 40, 40 * 17),  # 17:1
        torch.rand(3, 64, 64) * 9.0,
    ]
    found = scorer.score([*bad, pictures[0]])
    told = [score.reason for score in found]
    for words, reason in zip(("at least 32", "NaN", "16:1", "expected 0 to 1"), told, strict=False):
        assert words in reason
    assert found[4].value == pytest.approx(expected, abs=1e-3)


def test_alpha_is_dropped(pictures):
    scorer, _ = made()
    with_alpha = torch.cat([pictures[0], torch.rand(1, *pictures[0].shape[1:])])
    assert scorer.score([with_alpha])[0].value == scorer.score([pictures[0]])[0].value


@pytest.mark.parametrize(("how", "words"), [("broken", "diverged"), ("spoil", "gave up")])
def test_a_diverging_restorer_is_a_reason(pictures, how, words):
    """The dark picture's restoration breaks; its batch-mates keep their scores."""
    healthy, _ = made()
    scorer, _ = made(restorer=Blur(**{how: 0.2}))
    found = scorer.score(pictures)
    assert words in found[2].reason
    assert found.values()[:2] == pytest.approx(healthy.score(pictures).values()[:2], abs=1e-3)
    with pytest.raises(BadInput, match=words):
        scorer.heat_map(pictures[2])


def test_watch_sees_every_call_and_may_stop(pictures):
    scorer, _ = made(options=DiffOptions(most_rows=2))
    seen = []
    scorer.score(pictures, watch=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {300}
    assert seen[-1] == (300, 300)
    assert len(seen) >= 6

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scorer.score(pictures, watch=stop)
    assert scorer.restorer.pictures <= 5


@pytest.mark.parametrize("views", ["whole", "crops", "both"])
def test_the_quality_map_makes_up_the_score(pictures, views):
    scorer, _ = made(replace(JUDGE, views=views, most_crops=2))
    assert isinstance(scorer, MapScorer)
    found = scorer.heat_map(pictures[0])
    assert found.score == pytest.approx(scorer.score([pictures[0]])[0].value, abs=1e-3)
    assert (found.height, found.width) == (100, 140)
    assert badness(found).shape == (100, 140)


def test_the_change_map_shows_where():
    """Noise in one corner is what the blur takes away."""
    picture = torch.full((3, 96, 96), 0.5)
    picture[:, :32, 64:] += 0.4 * torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    scorer, _ = made(options=DiffOptions(heat_map="change"))
    picture = picture.clamp(0, 1)
    found = scorer.heat_map(picture)
    assert found.total == pytest.approx(scorer.score([picture])[0].attributes["change"], rel=1e-4)
    left, top, _, _ = found.worst(1 / 9, 3)
    assert (left, top) == (64, 0)
    assert found.higher_is_better is False


def test_the_plan_reads_each_restoration_at_its_own_depth():
    """Each map of the joined input is the judge's own map of its picture."""
    settings = JUDGE
    eyes = load_eyes(settings).network
    given = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    restored = torch.rand(2, 3, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    maps, vectors = eyes(given, restored)
    pieces = []
    for picture, places in zip((given, *restored.unbind(1)), ((0, 1, 2, 3), *PLAN), strict=True):
        features = eyes.patches.features(picture)
        pieces += [F.adaptive_avg_pool2d(features[JUDGE_MAPS[place]], 3) for place in places]
    torch.testing.assert_close(maps, torch.cat(pieces, 1))
    assert vectors.shape == (2, 4, settings.features)
    assert not torch.equal(vectors[:, 0], vectors[:, 1])


def test_vit_and_resnet_as_published():
    """ViT maps by the block plan, ResNet outputs of all four pictures."""
    torch.manual_seed(0)
    vit, resnet = VisionTransformer(VIT).eval(), ResNet((1, 1), 8, classes=10).eval()
    eyes = DiffEyes(vit, resnet, (0, 1, 2, 3))
    given, restored = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 3, 32, 32)
    with torch.no_grad():
        maps, vectors = eyes(given, restored)
        d0, d1, d2 = restored.unbind(1)
        pieces = (vit.maps(given, (0, 1, 2, 3)), vit.maps(d0, (0, 1)), vit.maps(d1, (2,)), vit.maps(d2, (3,)))
        expected = torch.cat([one for of_one in pieces for one in of_one], 1)
        assert torch.equal(maps, expected)
        torch.testing.assert_close(vectors[0, 2], resnet(restored[:, 1])[0])


def test_weights_come_from_the_users_caches_or_a_clear_error(tmp_path, monkeypatch):
    from latent_critic.core.methods import diff_v2_iqa_eyes as module

    settings = replace(SMALL, vectors="resnet")
    torch.manual_seed(1)
    vit, resnet = VisionTransformer(VIT), ResNet()
    extra = {"head.weight": torch.zeros(2), "norm.weight": torch.zeros(12)}
    save_file({**vit.state_dict(), **extra}, tmp_path / "vit.safetensors")
    monkeypatch.setattr(module.torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(resnet.state_dict(), tmp_path / "checkpoints" / module.RESNET_FILE)
    eyes = load_eyes(settings, EyeFiles(vit=tmp_path / "vit.safetensors"))
    assert eyes.identity == {"vit": weights_digest(vit), "resnet": weights_digest(resnet)}
    monkeypatch.setattr(module, "cached_vit", lambda: None)
    with pytest.raises(UnreadableFile, match="Have timm fetch it"):
        load_eyes(settings)
    (tmp_path / "checkpoints" / module.RESNET_FILE).write_bytes(b"torn")
    with pytest.raises(UnreadableFile, match="ResNet50"):
        load_eyes(replace(JUDGE, vectors="resnet"))


def test_timms_place_in_hugging_faces_cache(tmp_path, monkeypatch):
    """A cache laid out as huggingface_hub does."""
    constants = pytest.importorskip("huggingface_hub.constants")
    from latent_critic.core.methods.diff_v2_iqa_eyes import VIT_REPOSITORY, cached_vit

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert cached_vit() is None
    repository = tmp_path / f"models--{VIT_REPOSITORY.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc")
    (repository / "snapshots/abc").mkdir(parents=True)
    (repository / "snapshots/abc/model.safetensors").write_bytes(b"")
    assert cached_vit() == repository / "snapshots/abc/model.safetensors"


def test_a_file_keeps_all(pictures, tmp_path):
    scorer, head = made(SMALL, own_vit=True, facts={"training_set": "a set", "pictures": 9})
    save_diff_v2(tmp_path / "head.safetensors", head)
    assert is_diff_v2(tmp_path / "head.safetensors")
    read = load_diff_v2(tmp_path / "head.safetensors")
    assert (read.meta, read.settings, read.nets.shape) == (head.meta, head.settings, head.nets.shape)
    again = DiffV2IQA(Blur(), read, load_eyes(read.settings, vit=head.vit))
    assert again.score(pictures).values() == pytest.approx(scorer.score(pictures).values(), abs=0.2)
    with pytest.raises(BadInput, match="safetensors"):
        save_diff_v2(tmp_path / "head.pth", head)
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "head.safetensors").read_bytes()[:900])
    with pytest.raises(UnreadableFile):
        load_diff_v2(tmp_path / "torn.safetensors")
    assert not is_diff_v2(tmp_path / "torn.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UnreadableFile, match="none"):
        load_diff_v2(tmp_path / "other.safetensors")


def test_a_head_belongs_to_its_restorer(pictures):
    _, head = made()
    eyes = load_eyes(JUDGE)
    with pytest.raises(MismatchedBackbone, match="strength"):
        DiffV2IQA(Blur(0.5), head, eyes)
    scorer = DiffV2IQA(Blur(0.5), head, eyes, DiffOptions(override=True))
    assert not scorer.spec.calibrated
    assert scorer.spec.scale is None
    assert (
        "another restorer than at the head's training (strength)"
        in scorer.score(pictures[:1])[0].attributes["warnings"][0]
    )
    other = replace(head, meta=replace(head.meta, identity={**head.meta.identity, "eyes.judge": "another"}))
    with pytest.raises(MismatchedBackbone, match="judge"):
        DiffV2IQA(Blur(), other, eyes, DiffOptions(override=True))


def test_a_head_is_bound_to_the_judges_trunk_not_to_its_head(tmp_path, monkeypatch):
    from latent_critic.core.methods import diff_v2_iqa_eyes as module
    from latent_critic.core.nets import judge_file

    _, head = made()
    network, facts = judge_file.read(module.SHIPPED)
    path = tmp_path / "judge.safetensors"
    monkeypatch.setattr(module, "SHIPPED", path)
    with torch.no_grad():
        for weight in network.head.parameters():
            weight.mul_(0.5)
    judge_file.save(path, network, facts)
    DiffV2IQA(Blur(), head, load_eyes(JUDGE))
    last = list(network.backbone.parameters())[-1]
    with torch.no_grad():
        last.view(-1)[0] += 1.0
    judge_file.save(path, network, facts)
    with pytest.raises(MismatchedBackbone, match="judge"):
        DiffV2IQA(Blur(), head, load_eyes(JUDGE), DiffOptions(override=True))


def test_over_the_pixel_restorer(pictures):
    """SR3's own code with random weights: deterministic, and its calls are told."""
    from latent_critic.core.nets.restorer import RestorerNet, RestorerShape

    torch.manual_seed(0)
    net = RestorerNet(RestorerShape(8, (1, 2), 1, (), groups=4))
    restorer = Sr3Restorer(net.eval().requires_grad_(False), Sr3Options(steps=4, eta=0.0))
    scorer, head = made(restorer=restorer)
    first = scorer.score(pictures)
    assert first.values() == scorer.score(pictures).values()
    assert first[0].attributes["denoiser_calls"] == 4
    half = replace(head, meta=replace(head.meta, identity={**head.meta.identity, "restorer.precision": "float16"}))
    assert DiffV2IQA(restorer, half, load_eyes(JUDGE)).spec.calibrated


def test_half_precision_is_close(pictures):
    scorer, head = made()
    eyes = load_eyes(JUDGE)
    views = torch.stack([JUDGE.cut(picture)[0].pixels for picture in pictures])
    maps, vectors = eyes.network(views, Blur().restore(views).images)
    own = maps[:, : sum(JUDGE.maps)]
    head.nets.standardise(
        (own.mean((0, 2, 3)), own.std((0, 2, 3))), (vectors.mean((0, 1)), vectors.std((0, 1)))
    )  # as training does; deviations of a few pictures are small enough to show what rounding does
    scorer = DiffV2IQA(Blur(), head, eyes)
    expected = scorer.score(pictures).values()
    with torch.autocast("cpu", torch.bfloat16):
        found = DiffV2IQA(Blur(), head, eyes).score(pictures).values()
    assert found == pytest.approx(expected, abs=2.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"side": 100}, "divisible by 32"),
        ({"views": "all"}, "whole, crops or both"),
        ({"patches": "vit"}, "ViT's sizes"),
        ({"patches": "vit", "vit": VIT}, "for 96 px"),
        ({"patches": "vit", "vit": replace(VIT, side=96)}, "four rising blocks"),
        ({"patches": "other"}, "patches vit or judge"),
    ],
)
def test_settings_that_make_no_sense(changes, words):
    with pytest.raises(BadInput, match=words):
        replace(JUDGE, **changes)


def test_settings_survive_json():
    for settings in (JUDGE, SMALL, PUBLISHED):
        assert DiffSettings.from_dict(settings.to_dict()) == settings
    assert PUBLISHED.grid == 28
    assert PUBLISHED.maps == (768,) * 4
    with pytest.raises(BadInput):
        DiffOptions(most_rows=0)
