"""The embedded model in ComfyUI against the same files in diffusers: two implementations, one set of numbers."""

import importlib

import pytest
import torch
from PIL import Image
from skimage import data

pytestmark = pytest.mark.host


SIZES = {
    "usual": {"unet_channels": (32, 64, 64), "text_width": 32},
    "others": {"unet_channels": (32, 96, 64, 64), "unet_heads": 2, "text_width": 48, "text_layers": 3},
}


@pytest.fixture(scope="module", params=SIZES)
def bundle(request, comfyui, diffusers, tmp_path_factory):
    """A model folder of a small U-Net with random weights, as training writes it."""
    root = "latent_critic.core.train.ldm"
    models, writer, settings = (importlib.import_module(f"{root}.{name}") for name in ("models", "bundle", "settings"))
    from latent_critic.core.nets import critic_ldm

    sizes = settings.Architecture(**SIZES[request.param], embedding_rank=4, native_size=64)
    networks = models.build(sizes, seed=0)
    with torch.no_grad():  # blocks that begin as identities would hide a wrong order of layers
        for parameter in networks.vae.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    networks.vae.register_to_config(scaling_factor=0.5)
    folder = tmp_path_factory.mktemp("bundle")
    record = {"autoencoder": {"steps": 0}, "denoiser": {"steps": 0}}
    writer.write_bundle(networks, folder, critic_ldm.read_merges(critic_ldm.SHIPPED), record)
    return folder


@pytest.fixture(scope="module")
def embedded(comfyui):
    return importlib.import_module("latent_critic.core.hosts.comfyui.embedded")


@pytest.fixture(scope="module")
def pipeline(bundle):
    from latent_critic.core.hosts.diffusers.embedded import load_embedded

    return load_embedded(bundle)


@pytest.fixture(scope="module")
def backbone(bundle, embedded):
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    return ComfyBackbone(embedded.load_model(bundle), embedded.load_clip(bundle), embedded.load_vae(bundle))


PROMPTS = ("a sharp photo", "very blurry, landscape", "")


def test_texts_are_embedded_as_in_diffusers(backbone, pipeline):
    ids = pipeline.tokenizer(list(PROMPTS), padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = pipeline.text_encoder(ids).last_hidden_state
    # ComfyUI keeps text encoders in fp16
    torch.testing.assert_close(backbone.embed(PROMPTS).tokens.float(), expected, rtol=1e-2, atol=5e-3)


def test_latents_and_pictures_are_those_of_diffusers(backbone, pipeline):
    images = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = pipeline.vae.encode(images * 2 - 1).latents * pipeline.vae.config.scaling_factor
        restored = (pipeline.vae.decode(expected / pipeline.vae.config.scaling_factor).sample + 1) / 2
    latents = backbone.encode(images)
    torch.testing.assert_close(latents.float(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(backbone.decode(latents).float(), restored.clamp(0, 1), rtol=1e-4, atol=1e-4)


def test_noise_is_found_as_in_diffusers(backbone, pipeline):
    z = torch.randn(3, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    levels = torch.tensor([100, 500, 900])
    shares = pipeline.scheduler.alphas_cumprod[levels]
    sigma = ((1 - shares) / shares).sqrt()
    conditioning = backbone.embed(PROMPTS)
    x0 = backbone.denoise(z * sigma[:, None, None, None], sigma, conditioning)
    found = (z * sigma[:, None, None, None] - x0) / sigma[:, None, None, None]
    scaled = z * (sigma / (1 + sigma**2).sqrt())[:, None, None, None]
    with torch.no_grad():
        expected = pipeline.unet(scaled, levels, encoder_hidden_states=conditioning.tokens).sample
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


def test_it_is_a_family_of_its_own(backbone):
    family = backbone.family
    assert (family.name, family.latent_channels, family.native_size) == ("critic_ldm", 8, 256)
    assert {tap.kind for tap in family.taps} == {"feature", "attention"}


def test_stock_nodes_sample_with_it(bundle, embedded, comfyui):
    nodes = comfyui.NODE_CLASS_MAPPINGS
    model, clip, vae = embedded.load_model(bundle), embedded.load_clip(bundle), embedded.load_vae(bundle)
    encode = nodes["CLIPTextEncode"]().encode
    (positive,), (negative,) = encode(clip, "sharp"), encode(clip, "blurry")
    (latent,) = nodes["EmptyLatentImage"]().generate(64, 64, 1)
    (sampled,) = nodes["KSampler"]().sample(model, 1, 2, 4.0, "euler", "normal", positive, negative, latent, 1.0)
    (image,) = nodes["VAEDecode"]().decode(vae, sampled)
    assert image.shape == (1, 64, 64, 3)
    assert bool(torch.isfinite(image).all())


def test_weights_of_another_architecture_are_refused(bundle, embedded, tmp_path):
    import json
    import shutil

    from latent_critic.core.errors import BadInput

    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    config = json.loads((other / "unet" / "config.json").read_text())
    (other / "unet" / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 64}))
    with pytest.raises(BadInput, match="config"):
        embedded.load_model(other)


def test_the_shipped_model_loads_in_both_hosts_and_knows_pictures(comfyui, diffusers, embedded, tmp_path):
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone
    from latent_critic.core.hosts.diffusers.embedded import load_embedded
    from latent_critic.core.images import load_image

    Image.fromarray(data.astronaut()).resize((256, 256)).save(tmp_path / "astronaut.png")
    image = load_image(tmp_path / "astronaut.png")[None]
    backbone = ComfyBackbone(embedded.load_model(), embedded.load_clip(), embedded.load_vae())
    latents = backbone.encode(image)
    assert latents.shape == (1, 8, 32, 32)
    restored = backbone.decode(latents).float()
    assert float(-10 * torch.log10((restored - image).square().mean())) > 22
    pipeline = load_embedded()
    with torch.no_grad():
        other = pipeline.vae.encode(image * 2 - 1).latents * pipeline.vae.config.scaling_factor
    torch.testing.assert_close(latents.float(), other, rtol=1e-2, atol=2e-2)


def test_the_shipped_files_are_small_and_half_precision():
    from latent_critic.core.nets import critic_ldm
    from safetensors import safe_open

    files = [path for path in critic_ldm.SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25_000_000
    assert max(path.stat().st_size for path in files) <= 15_000_000
    for part in critic_ldm.PARTS:
        with safe_open(critic_ldm.weight_file(critic_ldm.SHIPPED, part), framework="pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118
