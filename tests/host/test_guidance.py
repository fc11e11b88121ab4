"""Guided paths on real ComfyUI models, in the mode in which the executor runs nodes."""

import pytest
import torch
from skimage import data
from torch.nn import functional as F

pytestmark = pytest.mark.host

FAMILIES = ("sd15", "sd15_three_scales", "sd20", "sd20_v", "sdxl", "critic_ldm")


@pytest.fixture(scope="module")
def images():
    """Two photographs, not square."""
    found = [torch.from_numpy(picture[:300, :300].copy()) for picture in (data.astronaut(), data.coffee())]
    return F.interpolate(torch.stack(found).permute(0, 3, 1, 2).float() / 255, (64, 48), mode="area")


@pytest.fixture(scope="module")
def judge_psi():
    from latent_critic.core.perceptual.judge import JudgePsi

    return JudgePsi.load()


@pytest.fixture(scope="module")
def parts(tiny):
    """`parts(family)` → MODEL, CLIP, VAE, freshly made."""

    def build(family):
        if family == "critic_ldm":
            from latent_critic.core.hosts.comfyui import embedded

            return embedded.load_model(), embedded.load_clip(), embedded.load_vae()
        return tiny.model(family), tiny.clip(family), tiny.vae()

    return build


@pytest.fixture
def walk(images):
    """`walk(backbone, psi, **options)` → GuidedPath of both pictures, at two levels."""
    from latent_critic.core.guidance.options import GuidanceOptions
    from latent_critic.core.guidance.path import guided_path

    def run(backbone, psi, recorder=None, *, watch=None, keep_z=True, **options):
        options = GuidanceOptions(**{"timesteps": (100, 40), **options})
        text = backbone.embed([""]).rows([0, 0])
        return guided_path(
            backbone, backbone.encode(images), images, options, psi, text, recorder, watch=watch, keep_z=keep_z
        )

    return run


def backbone_of(parts):
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    return ComfyBackbone(*parts)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_inference_mode_it_gives_the_same_and_leaves_the_model_alone(family, parts, walk, judge_psi, weights_of):
    plain = walk(backbone_of(parts(family)), judge_psi)
    with torch.inference_mode():  # weights loaded here are inference tensors
        loaded = parts(family)
        assert all(weight.is_inference() for weight in loaded[0].model.parameters())
        before = [weights_of(loaded[0]), weights_of(loaded[2].patcher)]
        found = walk(backbone_of(loaded), judge_psi)
        after = [weights_of(loaded[0]), weights_of(loaded[2].patcher)]
    assert found.reasons == (None, None)
    torch.testing.assert_close(found.z, plain.z, rtol=1e-4, atol=1e-4)
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert (found.calls.denoiser, found.calls.decoder, found.calls.decoder_backward) == (2, 4, 4)
    assert found.peak_memory is None  # a CPU has no such counter


@pytest.mark.parametrize("family", FAMILIES)
def test_psi_of_the_model_and_gradients_through_it(family, parts, walk, weights_of):
    from latent_critic.core.perceptual.ldm import LdmPsi

    def both(backbone):
        psi = LdmPsi(backbone, backbone.embed([""]))
        return walk(backbone, psi, zeta1=0.0), walk(backbone, None, zeta2=0.0, through="denoiser")

    plain = both(backbone_of(parts(family)))
    with torch.inference_mode():
        loaded = parts(family)
        before = weights_of(loaded[0])
        found = both(backbone_of(loaded))
        after = weights_of(loaded[0])
    for path, expected in zip(found, plain, strict=True):
        assert path.reasons == (None, None)
        torch.testing.assert_close(path.z, expected.z, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert found[0].calls.decoder == 0
    assert found[1].calls.denoiser_backward == 2


@pytest.mark.parametrize("family", ["sd15", "sd20_v", "critic_ldm"])
@pytest.mark.parametrize("psi_name", ["judge", "ldm"])
def test_each_term_lowers_its_energy(family, psi_name, parts, walk, judge_psi, images):
    """What is decoded of the guided latents is nearer to the picture, by both terms' own measure, than without."""
    from latent_critic.core.guidance.options import usual_zeta2
    from latent_critic.core.perceptual.ldm import LdmPsi

    backbone = backbone_of(parts(family))
    psi = judge_psi if psi_name == "judge" else LdmPsi(backbone, backbone.embed([""]))
    clean = backbone.encode(images)
    reference = psi.features(images if psi.space == "pixels" else clean)

    def energies(path):
        shown = backbone.decode(path.z)
        seen = shown if psi.space == "pixels" else path.z
        return (shown - images).square().flatten(1).sum(1), psi.distance(psi.features(seen), reference)

    plain = energies(walk(backbone, None, zeta1=0.0, zeta2=0.0))
    measured = energies(walk(backbone, None, zeta2=0.0))
    felt = energies(walk(backbone, psi, zeta1=0.0, zeta2=usual_zeta2(psi_name)))
    assert bool((measured[0] < plain[0]).all())
    assert bool((felt[1] < plain[1]).all())


@pytest.mark.parametrize("family", ["sd15", "critic_ldm"])
def test_every_single_step_lowers_its_energy(family, parts, walk, judge_psi, images, monkeypatch):
    from latent_critic.core.guidance import descent

    backbone, steps, original = backbone_of(parts(family)), [], descent.move

    def watched(z, gradient, energy, zeta, **rest):
        moved = original(z, gradient, energy, zeta, **rest)
        steps.append((energy, moved.detach().clone()))
        return moved

    monkeypatch.setattr(descent, "move", watched)
    walk(backbone, judge_psi, timesteps=(100, 60, 20))
    reference = judge_psi.features(images)
    assert len(steps) == 6
    for place, (before, moved) in enumerate(steps):
        shown = backbone.decode(moved)
        if place % 2 == 0:
            after = (shown - images).square().flatten(1).sum(1)
        else:
            after = judge_psi.distance(judge_psi.features(shown), reference)
        assert bool((after < before).all()), place


@pytest.mark.parametrize("psi_name", ["ldm", "latent"])
def test_every_step_at_a_psis_usual_strength_lowers_its_energy(psi_name, parts, walk, monkeypatch):
    from latent_critic.core.guidance import descent
    from latent_critic.core.guidance.options import usual_zeta2
    from latent_critic.core.methods.psis import make_psi

    backbone, ratios, original = backbone_of(parts("critic_ldm")), [], descent.descend

    def watched(x0, clean, terms, *rest, **named):
        moved = original(x0, clean, terms, *rest, **named)
        rows = slice(0, len(moved))
        with torch.no_grad():
            ratios.append(terms[0].energy(moved, rows) / terms[0].energy(x0, rows))
        return moved

    monkeypatch.setattr("latent_critic.core.guidance.walk.descend", watched)
    walk(backbone, make_psi(psi_name, backbone), timesteps=(100, 60, 20), zeta1=0.0, zeta2=usual_zeta2(psi_name))
    assert len(ratios) == 3
    assert float(torch.stack(ratios).max()) < 1.0, ratios


def test_it_makes_the_calls_that_it_counts(parts, walk, judge_psi):
    """Counted at the modules themselves."""
    model, clip, vae = parts("sd15")
    backbone, counts = backbone_of((model, clip, vae)), {"unet": 0, "decoder": 0}

    def count(name):
        def add(module, args):
            counts[name] += 1

        return add

    model.model.diffusion_model.register_forward_pre_hook(count("unet"))
    vae.first_stage_model.decoder.register_forward_pre_hook(count("decoder"))
    calls = walk(backbone, judge_psi).calls
    assert (counts["unet"], counts["decoder"]) == (calls.denoiser, calls.decoder) == (2, 4)
    walk(backbone, None, zeta1=0.0, zeta2=0.0)
    assert (counts["unet"], counts["decoder"]) == (4, 4)


def test_the_last_forward_is_cut_where_z_is_not_wanted(parts, walk, judge_psi):
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import mean_std

    model, clip, vae = parts("sd15")
    backbone, ends = backbone_of((model, clip, vae)), []
    taps = [tap for tap in backbone.family.taps if tap.name in ("mid", "up.0")]
    whole, cut = Recorder.of(taps, mean_std), Recorder.of(taps, mean_std)
    walk(backbone, judge_psi, whole)
    model.model.diffusion_model.out.register_forward_pre_hook(lambda module, args: ends.append(1))
    found = walk(backbone, judge_psi, cut, keep_z=False)
    assert found.z is None
    assert len(ends) == 1  # of two forwards only the first reaches the last layer
    assert whole.records.keys() == cut.records.keys()
    for key, record in whole.records.items():
        torch.testing.assert_close(cut.records[key].value, record.value, rtol=1e-5, atol=1e-6)


def test_a_placed_psi_is_made_ready_for_its_backward(parts, walk, judge_psi):
    """A network of ours under ComfyUI's memory management, loaded in inference mode."""
    from latent_critic.core.hosts.comfyui.own_nets import layer_ops, place
    from latent_critic.core.perceptual.judge import JudgeMaps, JudgePsi

    expected = walk(backbone_of(parts("sd15")), judge_psi)
    with torch.inference_mode():
        psi = JudgePsi(place(JudgeMaps.load(ops=layer_ops())), "shipped")
        found = walk(backbone_of(parts("sd15")), psi)
    torch.testing.assert_close(found.z, expected.z, rtol=1e-4, atol=1e-4)


def test_a_tiny_autoencoder_is_taken_when_asked_for(parts, tiny, walk, judge_psi, images):
    from latent_critic.core.errors import BadInput
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    model, clip, vae = parts("sd15")
    backbone = ComfyBackbone(model, clip, vae, tiny.vae(seed=5))
    assert set(backbone.identity) - set(ComfyBackbone(model, clip, vae).identity) == {"tiny_vae"}
    full, small = (walk(backbone, judge_psi, decoder=decoder) for decoder in ("full", "tiny"))
    assert not torch.allclose(full.z, small.z)
    other = walk(ComfyBackbone(model, clip, tiny.vae(seed=5), vae), judge_psi, decoder="tiny")
    assert other.calls.decoder == small.calls.decoder
    with pytest.raises(BadInput, match="tiny"):
        walk(ComfyBackbone(model, clip, vae), judge_psi, decoder="tiny")


def test_the_embedded_model_walks_alike_in_both_hosts(comfyui, diffusers, walk, judge_psi, monkeypatch):
    """ComfyUI against diffusers: two implementations of the networks, one path."""
    from comfy import model_management
    from latent_critic.core.hosts.comfyui import embedded
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.hosts.diffusers.embedded import load_embedded

    # ComfyUI keeps text encoders in fp16
    monkeypatch.setattr(model_management, "text_encoder_dtype", lambda *args, **rest: torch.float32)
    ours = walk(backbone_of((embedded.load_model(), embedded.load_clip(), embedded.load_vae())), judge_psi)
    theirs = walk(DiffusersBackbone(load_embedded()), judge_psi)
    plain = walk(DiffusersBackbone(load_embedded()), None, zeta1=0.0, zeta2=0.0)
    apart = (ours.z - theirs.z).square().mean().sqrt()
    assert apart < 0.02 * (theirs.z - plain.z).square().mean().sqrt()
    for name, energies in ours.energies.items():
        torch.testing.assert_close(energies, theirs.energies[name], rtol=1e-3, atol=1e-4)


def test_an_interrupt_leaves_at_the_next_call(parts, walk, judge_psi):
    from comfy import model_management

    backbone, seen = backbone_of(parts("sd15")), []

    def cancel(done, total):
        seen.append(done)
        model_management.interrupt_current_processing(True)

    with pytest.raises(model_management.InterruptProcessingException):
        walk(backbone, judge_psi, watch=cancel)
    model_management.interrupt_current_processing(False)
    assert seen == [1]  # the decoder that comes after the first forward asks
    assert walk(backbone, judge_psi).reasons == (None, None)


def test_a_sampler_run_before_and_after_is_identical(comfyui, parts, walk, judge_psi):
    model, clip, vae = parts("sd15")
    nodes = comfyui.NODE_CLASS_MAPPINGS
    (text,) = nodes["CLIPTextEncode"]().encode(clip, "a photo")

    def sample():
        (latent,) = nodes["EmptyLatentImage"]().generate(64, 64, 1)
        return nodes["KSampler"]().sample(model, 3, 2, 4.0, "euler", "normal", text, text, latent, 1.0)[0]["samples"]

    with torch.inference_mode():
        before = sample()
        walk(backbone_of((model, clip, vae)), judge_psi, through="denoiser")
        assert torch.equal(sample(), before)
