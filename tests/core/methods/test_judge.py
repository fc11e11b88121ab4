"""The built-in judge's ladder: scale, determinism, batch invariance, damage, sizes, bad input, memory, interrupts."""

import dataclasses
import logging

import pytest
import torch
from latent_critic.core.data.distortions import distort
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.methods.contract import Scorer
from latent_critic.core.methods.judge import SHIPPED, Judge
from latent_critic.core.nets.judge import JudgeNetwork
from latent_critic.core.nets.judge_file import read, save
from skimage import data
from skimage.metrics import structural_similarity


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


def sample(name: str, side: int = 320) -> torch.Tensor:
    image = torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1).float() / 255
    top, left = (image.shape[1] - side) // 2, (image.shape[2] - side) // 2
    return image[:, max(top, 0) :, max(left, 0) :][:, :side, :side]


@pytest.fixture(scope="module")
def coffee() -> torch.Tensor:
    return sample("coffee")


def test_it_is_a_calibrated_scorer(judge, coffee):
    assert isinstance(judge, Scorer)
    spec = judge.spec
    assert spec.scale == (0.0, 100.0)
    assert spec.calibrated_on == "photographs (BIQ2021)"
    assert spec.direction == "higher"
    assert 0 < spec.centre < 100
    assert 1 < spec.spread < 40
    assert "native" in spec.size_policy
    assert "hands" in spec.blind_to
    batch = judge.score([coffee])
    assert 0 <= batch[0].value <= 100
    assert spec == type(spec).from_dict(spec.to_dict())


def test_the_shipped_file_is_small():
    assert SHIPPED.stat().st_size <= 15 * 2**20


def test_scores_repeat_and_do_not_depend_on_batch_mates(judge, coffee):
    images = [coffee, sample("astronaut", 256), sample("chelsea", 300), distort(coffee, "white_noise", 3), coffee]
    together = judge.score(images).values()
    assert judge.score(images).values() == together, "a second run gives another score"
    alone = [judge.score([image])[0].value for image in images]
    assert together == pytest.approx(alone, abs=0.01)  # 1e-4 of the scale
    small = Judge(judge.network, judge.facts, views=3).score(images).values()
    assert small == pytest.approx(alone, abs=0.01)
    assert together[0] == pytest.approx(together[4], abs=0.01)
    backwards = judge.score(images[::-1]).values()
    assert backwards[::-1] == pytest.approx(alone, abs=0.01)


def test_nothing_random_is_touched(coffee):
    before = torch.get_rng_state()
    Judge.load().score([coffee])
    assert torch.equal(before, torch.get_rng_state())


def test_a_tensor_and_a_list_are_one(judge, coffee):
    stack = torch.stack([coffee, coffee.flip(2)])
    assert judge.score(stack).values() == judge.score(list(stack)).values()


@pytest.mark.parametrize("kind", ["gaussian_blur", "white_noise", "jpeg", "downscale", "pixelate"])
def test_damage_lowers_the_score(judge, kind):
    """Not here: over-exposure, impulse noise, contrast (the judge misses steps of them), motion blur, darken, quantise.

    The model card has the measured figures of all eleven kinds, tied to the shipped weights.
    """
    for name in ("coffee", "astronaut"):
        image = sample(name)
        ladder = [distort(image, kind, severity, seed=1) for severity in range(6)]
        values = judge.score(ladder).values()
        likeness = [
            structural_similarity(image.numpy(), step.numpy(), channel_axis=0, data_range=1.0) for step in ladder
        ]
        assert values[5] < values[0] - 10, (name, kind, values)
        steps = [
            (a, b) for a, b, p, q in zip(values, values[1:], likeness, likeness[1:], strict=False) if p - q >= 0.02
        ]
        assert sum(b < a for a, b in steps) >= len(steps) - 1, (name, kind, values)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (32, 512), (512, 2048), (2048, 130), (257, 255)])
def test_any_size_has_a_score(judge, height, width):
    torch.manual_seed(0)
    assert judge.score([torch.rand(3, height, width)])[0].ok


def test_an_enormous_picture_costs_a_bounded_number_of_views(judge, monkeypatch):
    seen = []
    forward = judge.network.backbone.features
    monkeypatch.setattr(judge.network.backbone, "features", lambda views: seen.append(views.shape) or forward(views))
    assert judge.score([torch.rand(1, 1, 1).expand(3, 6000, 8000)])[0].ok
    assert sum(shape[0] for shape in seen) <= 10


def test_bad_pictures_get_a_reason_and_the_others_a_score(judge, coffee):
    broken = coffee.clone()
    broken[0, 3, 3] = torch.nan
    batch = judge.score([coffee, broken, torch.rand(3, 1, 1), coffee * 255, coffee[:1], torch.rand(4, 64, 64)])
    assert [score.ok for score in batch] == [True, False, False, False, True, True]
    assert "NaN" in batch[1].reason
    assert "1×1" in batch[2].reason
    assert [score.index for score in batch] == list(range(6))
    assert batch.ranking()[-3:] == [1, 2, 3]


def test_a_batch_of_only_bad_pictures(judge):
    assert not any(score.ok for score in judge.score([torch.full((3, 64, 64), torch.nan)] * 2))


def test_zero_images_and_wrong_shapes_are_one_clear_error(judge):
    with pytest.raises(BadInput, match="at least one image"):
        judge.score([])
    with pytest.raises(BadInput, match="channels first"):
        judge.score([torch.rand(64, 64, 3)])


def test_watch_counts_and_may_stop(judge, coffee):
    seen = []
    Judge(judge.network, judge.facts, views=5).score([coffee] * 4, watch=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)
    assert len(seen) > 1

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        judge.score([coffee], watch=stop)


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("scarce"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_batch_and_says_so(judge, coffee, monkeypatch, caplog, error):
    images = [coffee, coffee.flip(1), coffee.flip(2)]
    whole = judge.score(images).values()
    forward = JudgeNetwork.statistics

    def scarce(self, views):
        if len(views) > 3:
            raise error
        return forward(self, views)

    monkeypatch.setattr(JudgeNetwork, "statistics", scarce)
    with caplog.at_level(logging.WARNING):
        assert Judge(judge.network, judge.facts, views=16).score(images).values() == pytest.approx(whole, abs=0.01)
    assert "out of memory" in caplog.text
    monkeypatch.setattr(JudgeNetwork, "statistics", lambda self, views: scarce(self, views.repeat(9, 1, 1, 1)))
    with pytest.raises(type(error)):
        Judge(judge.network, judge.facts).score(images)


def test_bf16_stays_near(judge, coffee):
    low = Judge.load(dtype=torch.bfloat16)
    assert low.score([coffee])[0].value == pytest.approx(judge.score([coffee])[0].value, abs=5)


def test_files_go_round_and_broken_ones_are_named(tmp_path, judge, coffee):
    copy = tmp_path / "copy.safetensors"
    save(copy, judge.network, judge.facts)
    assert read(copy)[1] == judge.facts
    assert Judge.load(path=copy).score([coffee]).values() == judge.score([coffee]).values()
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(copy.read_bytes()[:5000])
    other = tmp_path / "other.safetensors"
    save(other, judge.network, dataclasses.replace(judge.facts, format=99))
    for path, words in ((torn, "torn"), (tmp_path / "none.safetensors", "no such file"), (other, "judge format 1")):
        with pytest.raises(UnreadableFile, match=words):
            Judge.load(path=path)
