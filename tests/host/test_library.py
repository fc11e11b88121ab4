"""Three lines of Python: a pipeline, a folder or one file scores a list of pictures."""

import io

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
    assert "Scorer" in latent_critic.__all__


def test_paths_and_tensors_score_as_pictures_do(pipe, tmp_path):
    from latent_critic import Scorer
    from latent_critic.core.images import from_picture

    image = pictures()[0]
    image.save(tmp_path / "one.png")
    found = Scorer.from_pipeline(pipe, side=64).score([image, tmp_path / "one.png", from_picture(image)]).values()
    assert found[1:] == pytest.approx([found[0]] * 2, abs=1e-5)


def _truncated(image):
    file = io.BytesIO()
    image.resize((256, 256)).save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()[:5000]))


def _with_bad_exif(image):
    image = image.copy()
    image.info["exif"] = b"Exif\0\0garbage" * 3
    return image


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda: _truncated(pictures()[0]), "truncated"),
        (lambda: _with_bad_exif(pictures()[0]), "SyntaxError"),
        (lambda: "none.png", "no such file"),
        (lambda: Image.new("RGB", (0, 5)), "no pixels"),
        (lambda: torch.zeros(3, 0, 5), "no pixels"),
    ],
    ids=["truncated", "bad EXIF", "missing", "empty", "empty tensor"],
)
def test_a_picture_that_cannot_be_read_has_a_reason_and_the_others_are_scored(pipe, tmp_path, bad, reason, monkeypatch):
    from latent_critic import Scorer

    monkeypatch.chdir(tmp_path)
    scorer, good = Scorer.from_pipeline(pipe, side=64), pictures()
    batch = scorer.score([good[0], bad(), good[1]])
    expected = scorer.score(good).values()
    assert batch.values() == [pytest.approx(expected[0], abs=1e-4), None, pytest.approx(expected[1], abs=1e-4)]
    assert [score.index for score in batch] == [0, 1, 2]
    assert reason in batch[1].reason
    alone = scorer.score([bad()])
    assert (alone.spec, alone.values()) == (scorer.spec, [None])


def test_each_picture_keeps_its_prompt_behind_one_that_cannot_be_read(pipe, tmp_path):
    from latent_critic import Scorer
    from latent_critic.core.errors import BadInput

    scorer = Scorer.from_pipeline(pipe, "prompt_alignment", side=64)
    batch = scorer.score([tmp_path / "none.png", *pictures()], ["nothing", "a good photo", "a dog"])
    words = [[word["word"] for word in one.attributes.get("words", ())] for one in batch]
    assert words == [[], ["a", "good", "photo"], ["a", "dog"]]
    for prompts in (["a", "dog"], "a cat"):
        with pytest.raises(BadInput, match="3 prompts, one text per picture"):
            scorer.score([tmp_path / "none.png", *pictures()], prompts)


def test_a_batch_in_one_tensor_is_a_list_of_pictures(pipe):
    from latent_critic import Scorer
    from latent_critic.core.errors import BadInput

    scorer, images = Scorer.from_pipeline(pipe, side=64), torch.rand(2, 3, 64, 64)
    assert scorer.score(images).values() == scorer.score(list(images)).values()
    with pytest.raises(BadInput, match="Put the picture into a list"):
        scorer.score(images[0])


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
    with pytest.raises(BadInput, match="at least one image"):
        Scorer.from_pipeline(pipe).score([])


def test_settings_without_effect_are_refused(pipe, tmp_path):
    from latent_critic import Scorer
    from latent_critic.core.errors import BadInput

    with pytest.raises(BadInput, match="no device and no config with a pipeline object"):
        Scorer.from_pipeline(pipe, device="cpu")
    with pytest.raises(BadInput, match="no device and no config with a pipeline object"):
        Scorer.from_pipeline(pipe, config=tmp_path)
    with pytest.raises(BadInput, match="no side with a head"):
        Scorer.from_pipeline(pipe, "lgdm", head="x.safetensors", side=64)
    with pytest.raises(BadInput, match="tiles=False"):
        Scorer.from_pipeline(pipe, "prompt_alignment", tiles=True)


@pytest.mark.parametrize("device", ["xpu", "hpu", "nonsense"])
def test_a_device_that_is_not_there_is_named(comfyui, device):
    from latent_critic import Scorer
    from latent_critic.core.errors import BadInput

    with pytest.raises(BadInput, match=f"a device that PyTorch has on this machine; got {device}"):
        Scorer.from_pipeline("embedded", device=device)


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
    with pytest.raises(BadInput, match="or one of SD3Transformer2DModel, FluxTransformer2DModel"):
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


@pytest.mark.parametrize("method", ["lgdm", "genziqa", "dp_iqa"])
def test_the_embedded_model_brings_its_heads(diffusers, method):
    from latent_critic import Scorer
    from latent_critic.core.methods.on_model import shipped_head

    found, named = (Scorer.from_pipeline("embedded", method, head) for head in (None, shipped_head(method)))
    assert found.spec == named.spec
    values = found.score(pictures()).values()
    assert len(set(values)) == 2
    assert None not in values
