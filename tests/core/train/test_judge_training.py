"""The judge's training: a real run on a few pictures, stopped and gone on, and what its file says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from latent_critic.core.data.loaders import rated_csv
from latent_critic.core.data.rated import RatedSet
from latent_critic.core.errors import BadInput, UnreadableFile, UnwritableFile
from latent_critic.core.images import load_image
from latent_critic.core.methods.judge import SHIPPED, Judge
from latent_critic.core.nets.judge_file import digest, read
from latent_critic.core.nets.views import crops, global_view
from latent_critic.core.train import judge as training
from latent_critic.core.train.content import united
from latent_critic.core.train.features import FeatureCache
from latent_critic.core.train.judge import train_judge
from latent_critic.core.train.judge_head import HeadSettings, fit_head
from latent_critic.core.train.judge_request import JudgeRequest
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

SETTINGS = HeadSettings(members=2, width=8, epochs=8, batch=8)


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Forty textures, rated by how little they were blurred."""
    folder = tmp_path_factory.mktemp("rated")
    draw = np.random.default_rng(0)
    rows = ["path,score"]
    for place in range(40):
        blur = draw.uniform(0, 4)
        texture = gaussian_filter(draw.normal(size=(200, 220, 3)), (blur, blur, 0))
        pixels = (128 + 60 * texture / texture.std()).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
        rows.append(f"{place}.png,{100 - 20 * blur:.3f}")
    (folder / "list.csv").write_text("\n".join(rows))
    return rated_csv(folder / "list.csv")


def request(rated, folder, **rest):
    settings = {"settings": SETTINGS, "shard": 10, "per_group": 4} | rest
    return JudgeRequest(rated, folder / "mine.safetensors", folder / "cache", **settings)


@pytest.fixture(scope="module")
def trained(rated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    asked = request(rated, folder)
    return asked, train_judge(asked)


def test_a_trained_judge_agrees_with_its_ratings_and_says_so(trained, rated):
    asked, result = trained
    judge = Judge.load(path=asked.out)
    images = [Image.open(image.path) for image in rated.images]
    pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 for image in images]
    values = judge.score(pixels).values()
    assert spearmanr(values, [image.mos for image in rated.images]).statistic > 0.8
    assert result.validation.n == pytest.approx(8, abs=4)
    assert judge.spec.calibrated_on == "your ratings"
    assert judge.spec.centre == pytest.approx(np.mean(values), abs=0.5), "file, cache and scorer see the same views"
    assert judge.spec.spread == pytest.approx(np.std(values, ddof=1), abs=0.5)
    assert judge.facts.validation["srcc"] == result.validation.srcc
    assert judge.facts.pictures == 40


def test_a_squeezed_judge_is_smaller_and_says_nearly_the_same(trained, rated, tmp_path):
    asked, result = trained
    small = replace(asked, out=tmp_path / "small.safetensors", settings=replace(SETTINGS, rank=6))
    squeezed = train_judge(small)
    assert (squeezed.facts.rank, squeezed.facts.format, squeezed.facts.settings["rank"]) == (6, 2, 6)
    assert small.out.stat().st_size < asked.out.stat().st_size
    wide, narrow = (Judge.load(path=path) for path in (asked.out, small.out))
    pictures = [load_image(image.path) for image in rated.images[:8]]
    values = np.array([wide.score(pictures).values(), narrow.score(pictures).values()])
    assert np.corrcoef(values)[0, 1] > 0.95
    assert squeezed.validation != result.validation, "told of the head that is written"
    with pytest.raises(BadInput, match="squeeze"):
        replace(asked, settings=replace(SETTINGS, rank=-1))


def test_a_stopped_run_goes_on_and_ends_the_same(trained, rated, tmp_path):
    asked = request(rated, tmp_path)

    def stop(what, done, total):
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_judge(asked, stop)
    shards = sorted((tmp_path / "cache").iterdir())
    assert len(shards) == 2, "two whole shards, and nothing of the third"
    before = [shard.stat().st_mtime_ns for shard in shards]
    seen = []
    train_judge(asked, lambda what, done, total: seen.append((what, done)))
    assert ("features", 21) in seen
    assert ("features", 20) not in seen, "a finished shard was computed again"
    assert [shard.stat().st_mtime_ns for shard in shards] == before
    one, other = read(trained[0].out)[0].state_dict(), read(asked.out)[0].state_dict()
    assert all(torch.allclose(one[name], other[name], atol=1e-3) for name in one)


def test_the_cache_knows_its_weights(rated, tmp_path):
    network = read(SHIPPED)[0].backbone
    paths = [image.path for image in rated.images[:3]]
    FeatureCache(tmp_path, digest(SHIPPED)).extract(network, paths)
    found = FeatureCache(tmp_path, digest(SHIPPED)).load(paths)
    assert found.counts.tolist() == [1, 1, 1]
    with pytest.raises(FileNotFoundError):
        FeatureCache(tmp_path, "other weights").load(paths)


def test_the_cache_knows_pictures_by_their_bytes(rated, tmp_path):
    """Two sets with a 0001.png each must not share features; a set that was moved keeps its own."""
    network = read(SHIPPED)[0].backbone
    cache = FeatureCache(tmp_path / "cache", "shipped")
    paths = [tmp_path / name / "0001.png" for name in ("one", "other", "moved")]
    for path, image in zip(paths, (rated.images[0], rated.images[1], rated.images[0]), strict=True):
        path.parent.mkdir()
        path.write_bytes(image.path.read_bytes())
        cache.extract(network, [path])
    one, other, moved = (cache.load([path]).whole for path in paths)
    assert not torch.equal(one, other)
    assert torch.equal(one, moved)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    paths[0].write_bytes(rated.images[1].path.read_bytes())
    assert torch.equal(cache.load([paths[0]]).whole, other), "a file that was overwritten is another picture"
    with pytest.raises(UnreadableFile):
        cache.extract(network, [tmp_path / "gone.png"])


def test_a_group_never_lies_on_both_sides_of_the_validation_split(rated, tmp_path, monkeypatch):
    groups = [f"scene {place % 8}" for place in range(40)]
    images = zip(rated.images, groups, strict=True)
    scenes = RatedSet("scenes", tuple(replace(image, group=group) for image, group in images))
    seen = []
    split = training.split_by_group
    monkeypatch.setattr(training, "split_by_group", lambda *rest: seen.append(split(*rest)) or seen[0])
    train_judge(request(scenes, tmp_path))
    ((kept, held),) = seen
    assert held
    assert not {groups[place] for place in kept} & {groups[place] for place in held}


def test_clusters_and_groups_are_united():
    assert united([0, 0, 1, 1, 2], list("abcde"), 0.2) == [0, 0, 1, 1, 2], "no named groups: the clusters"
    found = united([0, 0, 1, 1, 2, 2, 3, 3], ["a", "b", "b", "c", "d", "e", "f", "g"], 0.2)
    assert len(set(found[:4])) == 1, "b lies in both of the first clusters"
    assert len(set(found)) == 3


def test_groups_that_tie_every_cluster_count_alone(caplog):
    found = united([0, 1, 2, 0, 1, 2], list("aaabbb"), 0.2)
    assert found == [0, 0, 0, 1, 1, 1]
    assert "keeps to the groups" in caplog.text


def test_the_cached_description_is_the_scorers_own(rated, tmp_path):
    network = read(SHIPPED)[0]
    cache = FeatureCache(tmp_path, "shipped")
    cache.extract(network.backbone, [rated.images[0].path])
    image = torch.from_numpy(np.array(Image.open(rated.images[0].path))).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        direct = network(crops(image), global_view(image))
        cached = network.head(cache.load([rated.images[0].path]).descriptions())
    assert float(cached) == pytest.approx(float(direct), abs=0.1)  # the cache is fp16


def test_an_ensemble_is_the_mean_of_its_members():
    torch.manual_seed(0)
    inputs, mos = torch.rand(40, 8384), torch.rand(40) * 100
    both = fit_head(inputs, mos, SETTINGS)
    one = fit_head(inputs, mos, HeadSettings(members=1, width=8, epochs=8, batch=8, seed=0))
    two = fit_head(inputs, mos, HeadSettings(members=1, width=8, epochs=8, batch=8, seed=1))
    ready = both.standardised(inputs)
    assert torch.allclose(both.logits(ready), (one.logits(ready) + two.logits(ready)) / 2, atol=1e-4)


@pytest.mark.parametrize(
    ("out", "cache", "words"),
    [
        ("folder", "cache", "the folder"),
        ("file.txt/mine.safetensors", "cache", "the file"),
        ("mine.safetensors", "file.txt", "the file"),
    ],
)
def test_targets_that_cannot_be_written_are_refused_before_any_work(rated, tmp_path, out, cache, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").touch()
    with pytest.raises(BadInput, match=words):
        JudgeRequest(rated, tmp_path / out, tmp_path / cache)


def test_a_folder_without_the_right_to_write_is_refused_before_any_work(rated, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda place, mode: False)
    with pytest.raises(UnwritableFile, match="no right to write"):
        JudgeRequest(rated, tmp_path / "new" / "mine.safetensors", tmp_path / "cache")


def test_training_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    fit_head(torch.ones(40, 8384) * torch.linspace(0, 1, 40)[:, None], torch.linspace(0, 100, 40), SETTINGS)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("mos", [torch.full((40,), 50.0), torch.rand(5)])
def test_ratings_that_teach_nothing_are_refused(mos):
    with pytest.raises(BadInput, match="at least 20 pictures"):
        fit_head(torch.rand(len(mos), 8384), mos, SETTINGS)
