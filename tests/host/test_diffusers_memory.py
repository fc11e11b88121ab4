"""Memory in the diffusers host: estimates against what autograd keeps, halved rows, a VAE in tiles; compiled models."""

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def make(comfyui, tiny, tiny_pipelines):
    """`make(family)` → a backbone on a tiny pipeline; `change` may alter the pipeline first."""
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone

    def build(family="sd15", change=None, **how):
        pipeline = tiny_pipelines.pipeline(family, tiny.model(family), tiny.vae(0, family=family))
        if change is not None:
            change(pipeline)
        return DiffusersBackbone(pipeline, **how)

    return build


def call(backbone, rows=3, side=16):
    z = 0.5 * backbone.noise((rows, backbone.family.latent_channels, side, side), 1)
    return z, torch.linspace(0.3, 0.7, rows), backbone.embed(["a good photo"]).rows([0] * rows)


def kept_by(work, modules):
    """Bytes that autograd keeps of a computation, weights and repetitions left out."""
    weights = {p.untyped_storage().data_ptr() for module in modules for p in module.parameters()}
    seen = {}

    def keep(tensor):
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            seen[place] = tensor  # held, so that no other tensor comes to lie there
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
@pytest.mark.parametrize("side", [16, 32])
def test_the_estimate_of_a_backward_is_on_the_safe_side_and_not_far_off(make, family, side):
    from latent_critic.core.hosts.diffusers import memory

    backbone = make(family)
    z, sigma, texts = call(backbone, 1, side)

    def through_the_denoiser():
        with backbone.gradients(denoiser=True):
            backbone.denoise(z.clone().requires_grad_(True), sigma, texts).sum()

    def through_the_decoder():
        with backbone.gradients():
            backbone.decode(z.clone().requires_grad_(True), differentiable=True).sum()

    row = memory.row_bytes(backbone._denoiser.order, z.shape[1:], torch.float32, backward=True)
    kept = kept_by(through_the_denoiser, [backbone._unet])
    assert kept <= row <= 12 * kept, (kept, row)
    vae = backbone._vae._vae
    row = memory.vae_row_bytes(vae, z.shape[1:], 8, torch.float32, backward=True)
    kept = kept_by(through_the_decoder, [vae])
    assert kept <= row <= 8 * kept, (kept, row)


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_rows_follow_free_memory_size_and_backward(make, monkeypatch, family):
    from latent_critic.core.hosts.diffusers import memory

    backbone = make(family)
    channels = backbone.family.latent_channels
    for where in ({}, {"decoder": True}):
        monkeypatch.setattr(memory, "free_bytes", lambda device: 2e9)
        small, large = (backbone.rows_that_fit((channels, side, side), **where) for side in (32, 256))
        assert 32 >= small > large >= 1
        assert backbone.rows_that_fit((channels, 64, 64), backward=True, **where) < small
        monkeypatch.setattr(memory, "free_bytes", lambda device: 0.0)
        assert backbone.rows_that_fit((channels, 32, 32), **where) == 1
        monkeypatch.setattr(memory, "free_bytes", lambda device: float("inf"))
        assert backbone.rows_that_fit((channels, 32, 32), **where) == 32


def test_free_memory_is_read_from_the_machine():
    from latent_critic.core.hosts.diffusers.memory import free_bytes

    assert 2**20 < free_bytes(torch.device("cpu")) < 2**50


def test_out_of_memory_halves_the_rows_and_says_so(make, monkeypatch, caplog):
    backbone = make()
    arguments = call(backbone, 5)
    with torch.no_grad():
        expected = backbone.denoise(*arguments)
    own, sizes = backbone._denoiser.estimate, []

    def small_card(z_t, *rest):
        sizes.append(len(z_t))
        if len(z_t) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return own(z_t, *rest)

    monkeypatch.setattr(backbone._denoiser, "estimate", small_card)
    with torch.no_grad():
        torch.testing.assert_close(backbone.denoise(*arguments), expected, rtol=1e-4, atol=1e-5)
    assert sizes == [5, 2, 2, 1]
    assert "Out of memory with 5 rows in one forward; going on with 2" in caplog.text


def test_a_vae_without_room_takes_rows_one_by_one_then_tiles(make, monkeypatch, caplog):
    backbone = make()
    vae = backbone._vae._vae
    vae.tile_sample_min_size, vae.tile_latent_min_size = 64, 8
    images = torch.rand(2, 3, 128, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = backbone.encode(images)
        whole = backbone.decode(expected)
        drawn = backbone.encode(images, sample=3)
    for name in ("encoder", "decoder"):
        module = getattr(vae, name)

        def small(x, *rest, own=module.forward, **more):
            if len(x) > 1 or (x.shape[-1] > 64 if x.shape[1] == 3 else x.shape[-1] > 8):
                raise MemoryError
            return own(x, *rest, **more)

        monkeypatch.setattr(module, "forward", small)
    with torch.no_grad():
        found = backbone.encode(images)
        assert found.shape == expected.shape
        assert float((found - expected).norm() / expected.norm()) < 1.0  # seams, wide ones: tiles are a few cells
        assert backbone.decode(expected).shape == whole.shape
        assert backbone.encode(images, sample=3).shape == drawn.shape
    assert caplog.text.count("works in tiles: seams may show") == 6
    assert not vae.use_tiling


@pytest.mark.parametrize("way", ["wrapped", "in place", "blocks"])
def test_a_compiled_pipeline_scores_as_itself(make, way):
    """`pipe.unet = torch.compile(pipe.unet)`, `pipe.unet.compile()`, and compiled blocks: taps see what they should."""
    import torch._dynamo
    from latent_critic.core.methods.zero_shot import ZeroShot, ZeroShotOptions

    def change(pipeline):
        if way == "wrapped":
            pipeline.unet, pipeline.vae = (torch.compile(m, backend="eager") for m in (pipeline.unet, pipeline.vae))
        elif way == "in place":
            pipeline.unet.compile(backend="eager")
            pipeline.vae.compile(backend="eager")
        else:
            for block in pipeline.unet.up_blocks:
                block.compile(backend="eager")

    def values(backbone):
        image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
        return ZeroShot(backbone, options=ZeroShotOptions(side=64, timesteps=(90,))).score([image]).values()

    plain, other = make(), make(change=change)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert values(other) == pytest.approx(values(plain), abs=1e-5)
    assert not torch._dynamo.utils.counters["frames"]
    assert other.fingerprint == plain.fingerprint
    z = 0.2 * plain.noise((1, 4, 8, 8), 1)
    slopes = []
    for backbone in (plain, other):
        with backbone.gradients():
            x = z.clone().requires_grad_(True)
            slopes.append(torch.autograd.grad(backbone.decode(x, differentiable=True).square().sum(), x)[0])
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_pipelines_score_and_differentiate(make, dtype):
    from latent_critic.core.methods.zero_shot import ZeroShot, ZeroShotOptions

    backbone = make(change=lambda pipeline: pipeline.to(dtype))
    images = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    found = ZeroShot(backbone, options=ZeroShotOptions(side=64, timesteps=(90,))).score(images)
    assert [score.reason for score in found] == [None, None]
    assert backbone.fingerprint.matches(make().fingerprint)
    with backbone.gradients(denoiser=True):
        z, sigma, texts = call(backbone, 1)
        z.requires_grad_(True)
        (slope,) = torch.autograd.grad(backbone.denoise(z, sigma, texts).square().mean(), z)
    assert bool(slope.isfinite().all())
    assert float(slope.abs().max()) > 0.0
