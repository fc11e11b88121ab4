"""DiffV2IQA's networks against derivations by einsum and loops in float64, timm's and torchvision's own, and sizes."""

import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.nets.diff_v2 import PLAN, DiffShape, DiffV2Nets, VcgShape, VdaShape, joined
from latent_critic.core.nets.diff_v2_attention import PlaceScores, ResidualTransposedAttention, TransposedAttention
from latent_critic.core.nets.diff_v2_resnet import ResNet
from latent_critic.core.nets.diff_v2_swin import SwinBlock, from_windows, to_windows
from latent_critic.core.nets.diff_v2_vit import VisionTransformer, VitShape, vit_weights

MAPS, FEATURES = (3, 4, 5, 6), 7


def randomised(module, seed=0):
    draw = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return module.double().eval().requires_grad_(False)


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def affine(linear, x):
    return torch.einsum("...i,oi->...o", x, linear.weight) + linear.bias


def softmax(x):
    """By its definition."""
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def test_tab_is_attention_between_channels():
    block, x = randomised(TransposedAttention(6)), drawn(2, 5, 6)
    q, k, v = (affine(linear, x) for linear in (block.q, block.k, block.v))
    attention = softmax(torch.einsum("nci,ndi->ncd", q, k) / 6**0.5)
    torch.testing.assert_close(block(x), x + torch.einsum("ncd,ndi->nci", attention, v), rtol=1e-12, atol=1e-12)


def test_rtab_is_attention_between_places_of_differences():
    block = randomised(ResidualTransposedAttention(FEATURES, 9))
    f, f0, f1, f2 = drawn(4, 2, FEATURES)
    q = affine(block.q, (f - f0).abs())
    k = affine(block.k, (f - f1).abs())
    v = affine(block.v, (f - f2).abs())
    attention = softmax(torch.einsum("ni,nj->nij", q, k) / FEATURES**0.5)
    expected = torch.einsum("nij,nj->ni", attention, v) + affine(block.residual, f)
    torch.testing.assert_close(block(f, f0, f1, f2), expected, rtol=1e-12, atol=1e-12)


def test_rtab_of_a_picture_that_restoration_leaves_alone_is_its_residual():
    """Differences of zero: what is left are the biases, the same for every picture, and the residual."""
    block = randomised(ResidualTransposedAttention(FEATURES, 9))
    one, other = drawn(2, 1, FEATURES)
    apart = [block(f, f, f, f) - affine(block.residual, f) for f in (one, other)]
    torch.testing.assert_close(*apart)
    assert apart[0].abs().max() > 0.0


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_swin_block_is_attention_among_the_places_of_a_shifted_window(shift):
    """Dense attention over all places, masked by floor((place - shift) / window) on both axes."""
    grid, window, heads, width = 8, 4, 2, 6
    block = randomised(SwinBlock(width, grid, window, heads, 10, shift, torch.nn))
    x = drawn(2, grid, grid, width)
    flat = block.norm1(x).reshape(2, -1, width)
    at = torch.cartesian_prod(torch.arange(grid), torch.arange(grid))
    home = torch.div(at - shift, window, rounding_mode="floor")
    allowed = (home[:, None] == home[None]).all(-1)
    step = (at[:, None] - at[None] + window - 1).clamp(0, 2 * window - 2)
    bias = block.bias[step[..., 0] * (2 * window - 1) + step[..., 1]]
    q, k, v = affine(block.qkv, flat).split(width, -1)
    found = []
    for head in range(heads):
        part = slice(head * 3, head * 3 + 3)
        logits = torch.einsum("nic,njc->nij", q[..., part], k[..., part]) / 3**0.5 + bias[..., head]
        found.append(torch.einsum("nij,njc->nic", softmax(logits.masked_fill(~allowed, -1e9)), v[..., part]))
    added = x + affine(block.out, torch.cat(found, -1)).view_as(x)
    expected = added + affine(block.fc2, torch.nn.functional.gelu(affine(block.fc1, block.norm2(added))))
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


def test_windows_and_back():
    x = drawn(2, 6, 6, 3)
    parts = to_windows(x, 3)
    assert torch.equal(parts[1].view(3, 3, 3), x[0, :3, 3:])
    assert torch.equal(from_windows(parts, 3, 6), x)


def test_places_score_by_their_weights():
    head, x = randomised(PlaceScores(4)), drawn(2, 9, 4)
    scores, weights = head(x)
    f = affine(head.score_out, affine(head.score_in, x).clamp(min=0))[..., 0].clamp(min=0)
    w = 1 / (1 + torch.exp(-affine(head.weight_out, affine(head.weight_in, x).clamp(min=0))[..., 0]))
    expected = torch.einsum("np,np->n", f, w) / w.sum(1)
    torch.testing.assert_close((scores * weights).sum(1), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, dtype=torch.float64))


@pytest.fixture(scope="module")
def torchvision(diffusers):
    """Importable through the fixture that declares the operators which a wheel may miss."""
    return pytest.importorskip("torchvision")


def test_vit_is_timms(torchvision):
    """timm's own network with our weights' names: the same blocks."""
    from timm.models.vision_transformer import VisionTransformer as Timms

    shape = VitShape(side=32, patch=8, width=12, depth=4, heads=3)
    theirs = Timms(img_size=32, patch_size=8, embed_dim=12, depth=4, num_heads=3, num_classes=5).double().eval()
    randomised(theirs, 3)
    ours = VisionTransformer(shape).double().eval()
    ours.load_state_dict(vit_weights(theirs.state_dict()))
    pixels = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = theirs.forward_intermediates((pixels - 0.5) / 0.5, indices=[1, 3], norm=False, intermediates_only=True)
    for one, other in zip(ours.maps(pixels, (1, 3)), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_resnet_is_torchvisions(torchvision):
    from torchvision.models.resnet import Bottleneck
    from torchvision.models.resnet import ResNet as Theirs

    theirs = Theirs(Bottleneck, [1, 2, 1, 1], num_classes=5, width_per_group=64).double().eval()
    draw = torch.Generator().manual_seed(2)
    for name, value in theirs.state_dict().items():
        if value.is_floating_point():
            value.copy_(0.1 * torch.randn(value.shape, generator=draw) + float("var" in name or "bn" in name))
            value.abs_() if "var" in name else value
    ours = ResNet((1, 2, 1, 1), classes=5).double().eval()
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.rand(2, 3, 64, 64, dtype=torch.float64, generator=draw)
    torch.testing.assert_close(ours(pixels), theirs((pixels - ours.mean) / ours.std), rtol=1e-9, atol=1e-9)


@pytest.fixture
def small():
    shape = DiffShape(VcgShape(MAPS, 4, 2, (8, 4), window=2, heads=2, hidden=6), VdaShape(FEATURES, 3, 4))
    return randomised(DiffV2Nets(shape))


def test_the_plan_takes_two_maps_of_d0_and_one_of_the_others():
    given = [torch.full((1, wide, 2, 2), float(wide)) for wide in MAPS]
    restored = [[torch.full((1, MAPS[place], 2, 2), -float(MAPS[place])) for place in places] for places in PLAN]
    found = joined(given, restored)[0, :, 0, 0].tolist()
    counts = [float(wide) for wide in MAPS for _ in range(wide)]
    assert found == counts + [-value for value in counts]


def test_the_sum_is_vcg_and_lambda_times_vda(small):
    maps, vectors = drawn(3, 2 * sum(MAPS), 4, 4), drawn(3, 4, FEATURES, seed=2)
    vcg, vda = small.vcg(maps), small.vda(vectors)
    assert float(small.weight) == 5.0
    both = small(maps, vectors)
    expected = (vcg.scores * vcg.weights).sum((1, 2)) + 5.0 * (vda.scores * vda.weights).sum((1, 2))
    torch.testing.assert_close(both.score, expected)
    for branch in (vcg, vda):
        torch.testing.assert_close(branch.weights.sum((1, 2)), torch.ones(3, dtype=torch.float64))
        assert branch.scores.min() >= 0.0
    alone = small(maps[1:2], vectors[1:2])
    torch.testing.assert_close(alone.score, both.score[1:2])


@pytest.mark.parametrize("branch", ["vcg", "vda"])
def test_a_branch_alone(branch):
    shape = DiffShape(
        VcgShape(MAPS, 4, 2, (8, 4), window=2, heads=2, hidden=6), VdaShape(FEATURES, 3, 4), branch=branch
    )
    nets = randomised(DiffV2Nets(shape))
    found = nets(drawn(2, 2 * sum(MAPS), 4, 4), drawn(2, 4, FEATURES))
    assert (found.vcg is None, found.vda is None) == (branch == "vda", branch == "vcg")
    assert found.score.shape == (2,)


def test_features_are_standardised_by_what_the_input_has(small):
    """Restored maps are scaled as the same map of the input: a difference between them stays one."""
    maps = drawn(1, 2 * sum(MAPS), 4, 4)
    centre, scale = drawn(sum(MAPS), seed=4), drawn(sum(MAPS), seed=5).abs() + 0.5
    before = small((maps - torch.cat([centre] * 2).view(1, -1, 1, 1)) / torch.cat([scale] * 2).view(1, -1, 1, 1), None)
    small.standardise((centre, scale), None)
    torch.testing.assert_close(small(maps, None).score, before.score)


def test_lambda_is_learned_where_asked_for():
    shape = DiffShape.narrow(MAPS, FEATURES, 4)
    assert "weight" not in dict(DiffV2Nets(shape).named_parameters())
    learned = DiffV2Nets(DiffShape.narrow(MAPS, FEATURES, 4, learned=True))
    learned(torch.randn(2, 2 * sum(MAPS), 4, 4), torch.randn(2, 4, FEATURES)).score.sum().backward()
    assert learned.weight.grad is not None


def test_shapes_turn_into_plain_types():
    shape = DiffShape.narrow(MAPS, FEATURES, branch="vda", learned=True)
    assert DiffShape.from_dict(shape.to_dict()) == shape


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": 0.0}, "above 0"),
        ({"weight": -1.0}, "above 0"),
        ({"weight": float("nan")}, "above 0"),
        ({"branch": "all"}, "a branch out of"),
        ({"vcg": VcgShape(grid=27)}, "tile the grid"),
        ({"vcg": VcgShape(heads=5)}, "divide the widths"),
    ],
)
def test_shapes_that_make_no_sense(changes, words):
    with pytest.raises(BadInput, match=words):
        DiffShape(**changes)


def test_published_sizes():
    shape = DiffShape.published()
    assert shape.vcg.channels == 8 * 768 + 4 * 192
    with torch.device("meta"):
        nets = DiffV2Nets(shape)
        vit, resnet = VisionTransformer(), ResNet()
    assert nets.vcg.levels.shape == (4, 192)
    assert nets.vcg.conv1.weight.shape[:2] == (768, 6912)
    assert nets.vda.rtab.q.weight.shape == (784, 1000)
    assert nets.vda.rtab.scale == 1000**-0.5
    assert nets.vda.conv.weight.shape[:2] == (32, 1)
    # timm's count for vit_base_patch8_224, less its last norm and classifier; torchvision's for resnet50.
    assert sum(p.numel() for p in vit.parameters()) == 86_576_872 - 2 * 768 - 769 * 1000
    assert sum(p.numel() for p in resnet.parameters()) == 25_557_032
