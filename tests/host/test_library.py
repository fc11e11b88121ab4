"""Three lines of Python: a pipeline, a folder or one file scores a list of pictures."""

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def pipe(comfyui, tiny, tiny_pipelines):
    return tiny_pipelines.pipeline("sd15", tiny.model("sd15"), tiny.vae(0))


def pictures():
    draw = torch.Generator().manual_seed(2)
    noise = [torch.randint(0, 255, (h, w, 3), generator=draw, dtype=torch.uint8) for h, w in ((64, 64), (80, 48))]
    return [Image.fromarray(part.numpy()) for part in noise]


def test_three_lines(pipe):
    import latent_critic

    images = pictures()
    scorer = latent_critic.Scorer.from_pipeline(pipe, side=64)
    scores = scorer.score(images).values()
    assert len(set(scores)) == 2
    assert scorer.spec.name == "zero_shot"
    assert not scorer.spec.calibrated
    assert scorer.score(images[1:]).values() == pytest.approx(scores[1:], abs=1e-4)
    assert "latent_critic" in dir(latent_critic) or "Scorer" in latent_critic.__all__


def test_paths_and_tensors_score_as_pictures_do(pipe, tmp_path):
    from latent_critic import Scorer
    from latent_critic.core.images import from_picture

    image = pictures()[0]
    image.save(tmp_path / "one.png")
    found = Scorer.from_pipeline(pipe, side=64).score([image, tmp_path / "one.png", from_picture(image)]).values()
    assert found[1:] == pytest.approx([found[0]] * 2, abs=1e-5)


def test_prompts_reach_prompt_alignment(pipe):
    from latent_critic import Scorer

    scorer = Scorer.from_pipeline(pipe, "prompt_alignment", side=64)
    batch = scorer.score(pictures(), ["a good photo", "a dog"])
    assert [[word["word"] for word in one.attributes["words"]] for one in batch] == [
        ["a", "good", "photo"],
        ["a", "dog"],
    ]


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux", "flux2", "flux2_klein"])
def test_a_saved_folder_scores_as_its_pipeline(comfyui, tiny, tiny_pipelines, tmp_path, family):
    from latent_critic import Scorer

    pipe = tiny_pipelines.pipeline(family, tiny.model(family), tiny.vae(0, family=family))
    pipe.save_pretrained(tmp_path)
    expected = Scorer.from_pipeline(pipe, side=64).score(pictures()).values()
    assert Scorer.from_pipeline(tmp_path, side=64).score(pictures()).values() == pytest.approx(expected, abs=1e-3)


def test_one_file_scores_as_comfyui_does(pipe, tiny, tiny_clip, tiny_pipelines, tmp_path):
    """The same file's parts in ComfyUI, and in diffusers by from_single_file with a folder that has no weights."""
    from latent_critic import Scorer
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone
    from latent_critic.core.methods.zero_shot import ZeroShot, ZeroShotOptions

    model, vae, clip = tiny.model("sd15"), tiny.vae(0), tiny_clip("sd15")
    file = tiny_pipelines.checkpoint(tmp_path / "model.safetensors", model, vae, clip)
    pipe.save_pretrained(tmp_path / "config")
    for weights in (tmp_path / "config").rglob("*.safetensors"):
        weights.unlink()
    scorer = Scorer.from_pipeline(file, config=tmp_path / "config", side=64)
    theirs = ZeroShot(ComfyBackbone(model, clip, vae), options=ZeroShotOptions(side=64))
    assert scorer.spec.backbone == theirs.spec.backbone
    expected = theirs.score([torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))]).values()
    found = scorer.score([torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))]).values()
    assert found == pytest.approx(expected, abs=1e-3)


def test_bad_input(pipe, tmp_path):
    from latent_critic import Scorer
    from latent_critic.core.errors import BadInput, UnreadableFile

    with pytest.raises(BadInput, match="a method out of zero_shot"):
        Scorer.from_pipeline(pipe, "nima")
    with pytest.raises(BadInput, match="a head with lgdm"):
        Scorer.from_pipeline(pipe, "lgdm")
    with pytest.raises(BadInput, match="no head with zero_shot"):
        Scorer.from_pipeline(pipe, "zero_shot", head="x.safetensors")
    with pytest.raises(UnreadableFile, match="a model folder"):
        Scorer.from_pipeline(tmp_path)
    with pytest.raises(UnreadableFile, match="no such file"):
        Scorer.from_pipeline(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="a configuration for one"):
        Scorer.from_pipeline(tmp_path / "bad.safetensors")
    pipe.save_pretrained(tmp_path / "config")
    with pytest.raises(UnreadableFile, match="a checkpoint of StableDiffusionPipeline"):
        Scorer.from_pipeline(tmp_path / "bad.safetensors", config=tmp_path / "config")
    with pytest.raises(BadInput, match="a list of pictures"):
        Scorer.from_pipeline(pipe).score(pictures()[0])
    with pytest.raises(BadInput, match="PIL images, paths or tensors"):
        Scorer.from_pipeline(pipe).score([3])


def test_pipelines_with_parts_missing_or_moved_away(pipe, tiny, tiny_pipelines):
    from types import SimpleNamespace

    import diffusers
    from latent_critic.core.errors import BadInput, MismatchedBackbone, UnsupportedFamily
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone

    def without(**changed):
        parts = {**pipe.components, "requires_safety_checker": False, **changed}
        parts.pop("image_encoder", None)
        return diffusers.StableDiffusionPipeline(**parts)

    image = torch.rand(1, 3, 64, 64)
    with pytest.raises(BadInput, match="no text_encoder"):
        DiffusersBackbone(without(text_encoder=None)).embed(["a"])
    with pytest.raises(BadInput, match="a pipeline with a VAE"):
        DiffusersBackbone(_no_vae(pipe)).encode(image)
    with pytest.raises(MismatchedBackbone, match="a VAE with 4 latent channels"):
        DiffusersBackbone(without(vae=tiny_pipelines._vae(tiny.vae(0, family="flux"), "flux")))
    with pytest.raises(BadInput, match="a U-Net, or one of SD3Transformer2DModel, FluxTransformer2DModel"):
        DiffusersBackbone(SimpleNamespace(unet=None, transformer=torch.nn.Linear(2, 2)))
    with pytest.raises(BadInput, match="sequential offload"):
        DiffusersBackbone(without(unet=diffusers.UNet2DConditionModel.from_config(pipe.unet.config).to("meta")))
    flux = DiffusersBackbone(tiny_pipelines.pipeline("flux", tiny.model("flux"), tiny.vae(0, family="flux")))
    for ask in (flux.cross_shapes, flux.text_spaces):
        with pytest.raises(UnsupportedFamily, match="transformer of flux"):
            ask()


def _no_vae(pipe):
    from types import SimpleNamespace

    return SimpleNamespace(**{**pipe.components, "vae": None})
