"""LPIPS and DISTS against the papers' sums, written out here on torchvision's own modules."""

import importlib
import math

import pytest
import torch
from latent_critic.core.errors import UnreadableFile
from latent_critic.core.nets.imagenet import LAYERS, ImageNetMaps, cached_file, load_maps
from latent_critic.core.perceptual.dists import DistsPsi
from latent_critic.core.perceptual.linear import dists_weights, lpips_weights
from latent_critic.core.perceptual.lpips import LpipsPsi
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F


@pytest.fixture(scope="module")
def torchvision_models(diffusers):  # that fixture declares the operators which torchvision misses
    return importlib.import_module("torchvision.models")


@pytest.fixture
def weight_file(tmp_path, torchvision_models):
    """`weight_file(name)` → a whole torchvision network with seeded random weights, saved as torchvision does."""

    def write(name):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            network = getattr(torchvision_models, name)(weights=None)
        for parameter in network.features.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
        path = tmp_path / f"{name}.pth"
        torch.save(network.state_dict(), path)
        return path, network.eval()

    return write


@pytest.fixture
def pair(photographs):
    return photographs[:2, :, :, :80], photographs[1:, :, :, 16:].flip(2)


def plain_lpips(network, reads, weights, x, y):
    """LPIPS position by position, in float64, on torchvision's own module."""
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64).view(3, 1, 1)
    total = 0.0
    a, b = ((2 * image.double() - 1 - shift) / scale for image in (x[None], y[None]))
    for number, layer in enumerate(network.double().features[: reads[-1] + 1]):
        a, b = layer(a), layer(b)
        if number in reads:
            w = weights[reads.index(number)].double()
            places = []
            for row in range(a.shape[2]):
                for column in range(a.shape[3]):
                    p, q = a[0, :, row, column], b[0, :, row, column]
                    places.append(float((w * (p / p.norm() - q / q.norm()).square()).sum()))
            total += math.fsum(places) / len(places)
    return total


@pytest.mark.parametrize(("name", "reads"), [("vgg16", [3, 8, 15, 22, 29]), ("alexnet", [1, 4, 7, 9, 11])])
def test_lpips_is_the_papers_sum(name, reads, weight_file, pair):
    path, network = weight_file(name)
    psi = LpipsPsi.load(path, name)
    x, y = (images[..., :40, :40] for images in pair)
    found = psi.distance(psi.features(x), psi.features(y))
    with torch.no_grad():
        expected = [plain_lpips(network, reads, lpips_weights(name), *images) for images in zip(x, y, strict=True)]
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-6)


def plain_dists(network, x, y):
    """DISTS by the paper's S1 and S2, in float64, on torchvision's own module."""
    alpha, beta = (values.double() for values in dists_weights())
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(3, 1, 1)
    window = torch.outer(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])).double() / 16

    def maps(image):
        found, h = [image.double()], (image.double() - mean) / std
        for number, layer in enumerate(network.double().features[:30]):
            if isinstance(layer, nn.MaxPool2d):
                squares = F.pad(h.square(), (1, 1, 1, 1)).unfold(1, 3, 2).unfold(2, 3, 2)
                h = ((squares * window).sum((-1, -2)) + 1e-12).sqrt()
            else:
                h = layer(h[None])[0]
            if number in (3, 8, 15, 22, 29):
                found.append(h)
        return found

    similarity, at = 0.0, 0
    for a, b in zip(maps(x), maps(y), strict=True):
        for p, q in zip(a.flatten(1), b.flatten(1), strict=True):
            covariance = ((p - p.mean()) * (q - q.mean())).mean()
            texture = (2 * p.mean() * q.mean() + 1e-6) / (p.mean() ** 2 + q.mean() ** 2 + 1e-6)
            structure = (2 * covariance + 1e-6) / (p.var(correction=0) + q.var(correction=0) + 1e-6)
            similarity += float(alpha[at] * texture + beta[at] * structure)
            at += 1
    return 1 - similarity


def test_dists_is_the_papers_sum(weight_file, pair):
    path, network = weight_file("vgg16")
    psi = DistsPsi.load(path)
    found = psi.distance(psi.features(pair[0]), psi.features(pair[1]))
    with torch.no_grad():
        expected = [plain_dists(network, *images) for images in zip(*pair, strict=True)]
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_maps_are_torchvisions_own(name, weight_file, pair):
    path, network = weight_file(name)
    ours, _ = load_maps(name, path)
    x = pair[0]
    maps = iter(ours(x))
    reads = [layer.number + 1 for layer in LAYERS[name] if layer.read]
    h = x
    with torch.no_grad():
        for number, layer in enumerate(network.features[: reads[-1] + 1]):
            h = layer(h)
            if number in reads:
                torch.testing.assert_close(next(maps), h)


def test_missing_weights_are_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for load in (LpipsPsi.load, DistsPsi.load, lambda: LpipsPsi.load(backbone="alexnet")):
        with pytest.raises(UnreadableFile, match=r"no file .*checkpoints.*https://download.pytorch.org"):
            load()


def test_weights_in_torchvisions_cache_are_found(monkeypatch, tmp_path, weight_file):
    path, _ = weight_file("alexnet")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    cached_file("alexnet").parent.mkdir()
    path.rename(cached_file("alexnet"))
    assert LpipsPsi.load(backbone="alexnet").identity.startswith("lpips 0.1 alexnet ")


def test_one_network_has_one_digest_whatever_its_file(tmp_path, weight_file):
    path, network = weight_file("alexnet")
    other = tmp_path / "alexnet.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, other)
    assert load_maps("alexnet", path)[1] == load_maps("alexnet", other)[1]


def test_files_of_another_network_and_torn_files_are_refused(tmp_path, weight_file):
    path, _ = weight_file("alexnet")
    with pytest.raises(UnreadableFile, match="vgg16"):
        load_maps("vgg16", path)
    torn = tmp_path / "torn.pth"
    torn.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UnreadableFile, match="torn"):
        load_maps("alexnet", torn)


def test_the_shipped_linear_weights_have_the_papers_sizes():
    channels = [layer.wide_out for layer in LAYERS["vgg16"] if layer.read]
    assert [len(weights) for weights in lpips_weights("vgg16")] == channels == [64, 128, 256, 512, 512]
    alpha, beta = dists_weights()
    assert len(alpha) == len(beta) == 3 + sum(channels)
    assert min(float(values.min()) for values in (*lpips_weights("vgg16"), *lpips_weights("alexnet"), alpha, beta)) >= 0
    assert float(alpha.sum() + beta.sum()) == pytest.approx(1.0)


def test_networks_of_a_host_are_taken(monkeypatch):
    """A host hands in its own layers."""

    class Ops:
        made = 0

        class Conv2d(nn.Conv2d):
            def __init__(self, *args, **kwargs):
                Ops.made += 1
                super().__init__(*args, **kwargs)

    ImageNetMaps("alexnet", ops=Ops)
    assert Ops.made == 5
