"""VAEs of diffusers pipelines: fp16 that needs fp32, normalisation by channel, strides; small ones."""

from types import SimpleNamespace

import pytest
import torch

LEVELS = 4


@pytest.fixture
def make(diffusers):
    """`make(**config)` → a small AutoencoderKL with the same weights each time."""

    def build(levels=LEVELS, **config):
        torch.manual_seed(0)
        network = diffusers.AutoencoderKL(
            latent_channels=4, block_out_channels=(32,) * levels, layers_per_block=1, norm_num_groups=32,
            down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
            **{"scaling_factor": 0.5, **config},
        )  # fmt: skip
        return network.eval().requires_grad_(False)

    return build


@pytest.fixture
def wrapped(diffusers):
    def wrap(vae, family="sdxl", **more):
        from latent_critic.core.backbone.contracts import Family
        from latent_critic.core.hosts.diffusers.autoencoder import PipelineVAE

        told = {"latent_channels": 4, "latent_stride": 8, **more}
        return PipelineVAE(vae, Family(family, "eps", native_size=64, text_layout="", **told), 4)

    return wrap


def images():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def encoded(vae, pixels):
    with torch.no_grad():
        return vae.encode(pixels, (-1.0, 1.0), None, torch.device("cpu"))


def large(vae):
    """Activations as SDXL's VAE has them: too large for fp16 inside, of usual size at the end (there is a norm)."""
    vae.encoder.conv_in.weight.mul_(3e5)
    vae.decoder.conv_in.weight.mul_(3e5)
    return vae


def test_an_fp16_vae_that_would_overflow_computes_in_fp32_and_keeps_its_weights(make, wrapped):
    whole, half = large(make()), large(make()).half()
    before = {name: value.clone() for name, value in half.state_dict().items()}
    exact, narrow = wrapped(whole), wrapped(half)
    expected, found = encoded(exact, images()), encoded(narrow, images())
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    with torch.no_grad():
        pixels = [one.decode(expected, torch.device("cpu"), differentiable=False) for one in (exact, narrow)]
    torch.testing.assert_close(*pixels, rtol=0.02, atol=0.02)
    after = half.state_dict()
    assert half.dtype == torch.float16
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not encoded(wrapped(half, "sd15"), images()).isfinite().all()  # the same weights where nothing is widened


def test_a_backward_after_the_decode_is_that_of_fp32(make, wrapped):
    slopes, draw = [], torch.Generator().manual_seed(2)
    latents = torch.randn(1, 4, 4, 4, generator=draw)
    for vae in (large(make()), large(make()).half()):
        z = latents.clone().requires_grad_(True)
        pixels = wrapped(vae).decode(z, torch.device("cpu"), differentiable=True)
        slopes.append(torch.autograd.grad(pixels.square().sum(), z)[0])
    assert slopes[0].abs().max() > 0
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0.05, atol=0.05 * float(slopes[0].abs().max()))


@pytest.mark.parametrize("change", [{"force_upcast": False}, {}])
def test_only_what_overflows_is_widened(make, wrapped, change):
    vae = make(**change).to(torch.float16 if change else torch.bfloat16)
    seen = []
    vae.encoder.conv_in.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    assert encoded(wrapped(vae), images()).isfinite().all()
    assert seen == [vae.dtype]


def test_memory_is_planned_for_what_it_computes_in(make, wrapped, monkeypatch):
    from latent_critic.core.hosts.diffusers import memory

    monkeypatch.setattr(memory, "free_bytes", lambda device: 4e8)
    rows = [wrapped(vae).rows_that_fit((4, 32, 32), torch.device("cpu")) for vae in (make(), make().half())]
    assert rows == [2, 2]  # of at most 4


def test_weights_of_an_offloaded_vae_are_widened_where_they_are_brought(make, wrapped):
    from accelerate import cpu_offload_with_hook

    vae = make().half()
    vae, _ = cpu_offload_with_hook(vae, "meta")  # a device without values: a CPU has no second one with them
    with torch.no_grad():
        found = wrapped(vae).encode(images(), (-1.0, 1.0), None, torch.device("meta"))
    assert (found.device.type, found.shape) == ("meta", (2, 4, 4, 6))


def test_latents_are_normalised_by_channel_where_the_vae_tells_how(make, wrapped):
    """As the SDXL pipelines do: (raw - mean) * scaling_factor / std, and back."""
    mean, spread = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.0, 0.5, 1.5, 4.0])
    plain, told = make(), make(latents_mean=mean.tolist(), latents_std=spread.tolist())
    raw = encoded(wrapped(plain), images()) / 0.5
    found = encoded(wrapped(told), images())
    expected = (raw - mean.view(1, -1, 1, 1)) * 0.5 / spread.view(1, -1, 1, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        pixels = [
            wrapped(vae).decode(z, torch.device("cpu"), differentiable=False)
            for vae, z in ((told, found), (plain, raw * 0.5))
        ]
    torch.testing.assert_close(*pixels, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("levels", "stride"), [(3, 4), (5, 16)])
def test_a_vae_of_another_stride_is_refused(make, wrapped, levels, stride):
    from latent_critic.core.errors import MismatchedBackbone

    with pytest.raises(MismatchedBackbone, match=f"and stride 8 for sd15; got one with 4 channels and stride {stride}"):
        wrapped(make(levels), "sd15")


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AsymmetricAutoencoderKL"])
def test_other_kinds_tell_their_stride_in_other_words(diffusers, wrapped, kind):
    from latent_critic.core.errors import MismatchedBackbone

    small = {
        "AutoencoderTiny": {
            "encoder_block_out_channels": (8,) * LEVELS, "decoder_block_out_channels": (8,) * LEVELS,
            "num_encoder_blocks": (1,) * LEVELS, "num_decoder_blocks": (1,) * LEVELS,
        },
        "AsymmetricAutoencoderKL": {
            "down_block_types": ("DownEncoderBlock2D",) * LEVELS, "down_block_out_channels": (32,) * LEVELS,
            "up_block_types": ("UpDecoderBlock2D",) * LEVELS, "up_block_out_channels": (32,) * LEVELS,
        },
    }[kind]  # fmt: skip
    vae = getattr(diffusers, kind)(latent_channels=4, **small)
    wrapped(vae)
    with pytest.raises(MismatchedBackbone, match="stride 8"):
        wrapped(vae, latent_stride=16)


def test_a_vae_that_does_not_tell_its_stride_is_taken_at_its_channels(wrapped):
    wrapped(SimpleNamespace(config=SimpleNamespace(latent_channels=4)))
