"""The authors' checkpoint layout: a random state dict of it, against an assembly of diffusers' and plain functions."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

pytestmark = pytest.mark.host
FEW = ("a photo of a human with lens artifacts", "a photo of a plant with blur artifacts", "a photo of night")
WIDTH = 64


@pytest.fixture
def dp(comfyui, monkeypatch):
    from latent_critic.core import errors
    from latent_critic.core.hosts.comfyui import own_nets, own_unet, residuals
    from latent_critic.core.methods import dp_iqa, dp_iqa_authors, dp_iqa_file, dp_iqa_head, dp_iqa_student
    from latent_critic.core.nets import dp_iqa_decoder, efficientnet
    from latent_critic.core.nets import dp_iqa_student as student

    monkeypatch.setattr("latent_critic.core.methods.dp_iqa_text.sentences", lambda: FEW)
    return SimpleNamespace(
        errors=errors, own=own_unet, residuals=residuals, scorer=dp_iqa, authors=dp_iqa_authors, file=dp_iqa_file,
        head=dp_iqa_head, student_scorer=dp_iqa_student, decoder=dp_iqa_decoder, student=student,
        efficientnet=efficientnet, nets=own_nets,
    )  # fmt: skip


@pytest.fixture
def sizes(dp):
    """SD 1.5 with a tenth of the channels."""
    return dp.own.OwnSizes(channels=32, blocks=2, context=WIDTH, heads=4, vae=32, vae_multiples=(1, 1, 1, 1))


@pytest.fixture
def shape(dp):
    decoder = dp.decoder.DecoderShape((128, 128, 64, 32), width=32, thin=(16, 8, 4), grid=16, cells=16, hidden=12)
    return dp.head.DpShape(decoder, WIDTH, WIDTH, (32, 64, 128, 128))


@pytest.fixture
def theirs(diffusers):
    """The teacher's networks out of diffusers, small, with random weights."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64, 128, 128), cross_attention_dim=WIDTH, attention_head_dim=4, layers_per_block=2
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32,) * 4, layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    adapter = diffusers.T2IAdapter(channels=[32, 64, 128, 128], adapter_type="full_adapter").adapter
    return SimpleNamespace(unet=unet.eval(), vae=vae.eval(), adapter=adapter.eval())


def decoder_state(shape, bias):
    """Random tensors under the authors' names."""
    draw = torch.Generator().manual_seed(1)
    d, made = shape.decoder, {}

    def layer(name, *size, bias=True):
        made[f"{name}.weight"] = torch.randn(size, generator=draw) / torch.tensor(size[1:]).prod().sqrt()
        if bias:
            made[f"{name}.bias"] = 0.1 * torch.randn(size[0], generator=draw)

    for place, channels in enumerate(d.channels, 1):
        layer(f"QFD.conv{place}", d.width, channels, 3, 3)
        layer(f"QFD.se{place}.fc.0", d.width // 16, d.width, bias=bias)
        layer(f"QFD.se{place}.fc.2", d.width, d.width // 16, bias=bias)
    layer("QFD.fuse_conv", d.width, 4 * d.width, 3, 3)
    layer("QFD.se_fuse.fc.0", d.width // 16, d.width, bias=bias)
    layer("QFD.se_fuse.fc.2", d.width, d.width // 16, bias=bias)
    for place, (a, b) in enumerate(zip((d.width, *d.thin), d.thin, strict=False), 1):
        layer(f"QFD.conv_score{place}", b, a, 1, 1)
    layer("QFD.fc1", d.hidden, d.thin[-1] * d.grid**2)
    layer("QFD.fc2", d.hidden, d.hidden)
    layer("QFD.fc3", 1, d.hidden)
    layer("QFD.bnc1", 7)
    layer("QFD.classifier_dist", 25, 9)
    made["gamma"] = torch.randn(WIDTH, generator=draw)
    layer("text_adapter.fc.0", WIDTH, WIDTH)
    layer("text_adapter.fc.2", WIDTH, WIDTH)
    return made


@pytest.fixture
def state(theirs, shape):
    def make(bias=False):
        parts = {"unet.": theirs.unet, "vae.": theirs.vae, "img_adapter.": theirs.adapter}
        found = {f"{prefix}{name}": value for prefix, net in parts.items() for name, value in net.state_dict().items()}
        return {name: value.clone() for name, value in (found | decoder_state(shape, bias)).items()}

    return make


def assembled(p, theirs, pixels, tokens, grid):
    """The teacher's forward by its description: diffusers' networks, and plain functions of the state dict."""

    def se(x, name):
        low = F.relu(F.linear(x.mean((2, 3)), p[f"{name}.fc.0.weight"], p.get(f"{name}.fc.0.bias")))
        return x * torch.sigmoid(F.linear(low, p[f"{name}.fc.2.weight"], p.get(f"{name}.fc.2.bias")))[..., None, None]

    inner = F.gelu(F.linear(tokens, p["text_adapter.fc.0.weight"], p["text_adapter.fc.0.bias"]))
    text = tokens + p["gamma"] * F.linear(inner, p["text_adapter.fc.2.weight"], p["text_adapter.fc.2.bias"])
    z = theirs.vae.encode(pixels).latent_dist.mode() * 0.18215
    seen = []
    hooks = [block.register_forward_hook(lambda m, a, out: seen.append(out)) for block in theirs.unet.up_blocks]
    residuals = theirs.adapter(pixels)
    theirs.unet(z, 1, text.expand(len(z), -1, -1), down_intrablock_additional_residuals=[r.clone() for r in residuals])
    for hook in hooks:
        hook.remove()
    maps = [F.interpolate(values, size=grid, mode="bicubic") for values in seen]
    parts = [
        se(F.conv2d(values, p[f"QFD.conv{i}.weight"], p[f"QFD.conv{i}.bias"], padding=1), f"QFD.se{i}")
        for i, values in enumerate(maps, 1)
    ]
    x = F.conv2d(torch.cat(parts, 1), p["QFD.fuse_conv.weight"], p["QFD.fuse_conv.bias"], padding=1)
    x = se(x, "QFD.se_fuse")
    for i in (1, 2, 3):
        x = F.relu(F.conv2d(x, p[f"QFD.conv_score{i}.weight"], p[f"QFD.conv_score{i}.bias"]))
    x = x.flatten(1)
    for i in (1, 2):
        x = F.relu(F.linear(x, p[f"QFD.fc{i}.weight"], p[f"QFD.fc{i}.bias"]))
    return 100.0 * F.linear(x, p["QFD.fc3.weight"], p["QFD.fc3.bias"])[:, 0]


@pytest.fixture
def clip(tiny):
    """With a projection, as OpenAI's whole CLIP has one."""
    made = tiny.clip("sd15")
    projection = made.cond_stage_model.clip_l.transformer.text_projection.weight
    with torch.no_grad():
        projection.normal_(std=0.2, generator=torch.Generator().manual_seed(3))
    return made


def loaded(dp, found, sizes, shape, clip):
    teacher = dp.authors.teacher_of(found, shape)
    model, vae = dp.own.own_model(teacher.unet, sizes), dp.own.own_vae(teacher.vae, sizes)
    backbone = dp.residuals.ResidualComfyBackbone(model, clip, vae)
    return dp.scorer.DpIqa(backbone, dp.authors.academic_head(backbone, teacher), place=dp.nets.place), teacher


@pytest.mark.parametrize("bias", [False, True])
def test_one_forward_is_the_independent_assemblys(dp, state, theirs, sizes, shape, clip, tmp_path, bias):
    path = tmp_path / "teacher.pth"
    torch.save(state(bias), path)
    read = dp.authors.read_state(path)
    assert dp.authors.kind_of(read) == "teacher"
    scorer, teacher = loaded(dp, read, sizes, shape, clip)
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        batch = scorer.score(images)
    with torch.no_grad():
        expected = assembled(state(bias), theirs, images, scorer.backbone.text_features(FEW), 16)
    assert batch.values() == pytest.approx(expected.tolist(), abs=2e-3)
    assert abs(batch[0].value - batch[1].value) > 0.05
    assert set(teacher.unused) == {f"QFD.{n}.{k}" for n in ("bnc1", "classifier_dist") for k in ("weight", "bias")}


def test_scores_are_marked_academic_and_rank(dp, state, sizes, shape, clip):
    scorer, _ = loaded(dp, state(), sizes, shape, clip)
    batch = scorer.score(torch.rand(1, 3, 128, 128))
    assert "academic use" in batch.spec.settings["use"]
    assert "academic use" in batch[0].attributes["warnings"][0]
    assert not batch.spec.calibrated
    with pytest.raises(dp.errors.BadInput, match="academic"):
        dp.file.save_dp_iqa("x.safetensors", scorer._head)


def test_comfyui_loads_the_model_for_a_score_and_frees_it(dp, state, sizes, shape, clip):
    from comfy import model_management

    scorer, _ = loaded(dp, state(), sizes, shape, clip)
    model_management.unload_all_models()
    network = scorer.backbone._model.model

    def held():
        return [found.model.model for found in model_management.current_loaded_models]

    assert all(found is not network for found in held())
    scorer.score(torch.rand(1, 3, 128, 128))
    assert any(found is network for found in held())
    model_management.free_memory(1e30, model_management.get_torch_device())
    assert all(found is not network for found in held())
    assert scorer.score(torch.rand(1, 3, 128, 128))[0].ok


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("unet.mid_block.resnets.0.conv1.weight"), "1 missing: unet.mid_block.resnets.0.conv1.weight"),
        (lambda s: s.pop("vae.encoder.conv_in.bias"), "1 missing: vae.encoder.conv_in.bias"),
        (lambda s: s.pop("QFD.fc2.bias"), r"1 missing: QFD.fc2.bias"),
        (lambda s: s.pop("gamma"), "1 missing: text_adapter.gamma"),
        (lambda s: s.update({"unet.more.weight": torch.zeros(1)}), "1 unknown: unet.more.weight"),
        (lambda s: s.update({"vae.more.weight": torch.zeros(1)}), "1 unknown: vae.more.weight"),
        (lambda s: s.update({"other.weight": torch.zeros(1)}), "1 unknown: other.weight"),
        (lambda s: s.update({"QFD.more.weight": torch.zeros(1)}), "1 unknown: QFD.more.weight"),
        (lambda s: s.update({"QFD.conv3.weight": torch.zeros(32, 64, 1, 1)}), r"QFD.conv3.weight \[32, 64, 3, 3\]"),
        (lambda s: s.update({"unet.conv_in.weight": torch.zeros(32, 9, 3, 3)}), r"unet.conv_in.weight \[32, 4, 3, 3\]"),
        (lambda s: s.update({"vae.quant_conv.weight": torch.zeros(8, 7, 1, 1)}), r"vae.quant_conv.weight \[8, 8"),
        (lambda s: [s.pop(key) for key in list(s) if key.startswith("vae.")], r"teacher with its vae"),
    ],
)
def test_every_key_is_accounted_for(dp, state, sizes, shape, clip, change, words):
    found = state()
    change(found)
    with pytest.raises(dp.errors.BadInput, match=words):
        loaded(dp, found, sizes, shape, clip)


@pytest.mark.parametrize(("width", "base"), [(1024, "SD 2.x"), (2048, "SDXL")])
def test_a_checkpoint_of_another_base_is_named(dp, state, sizes, shape, clip, width, base):
    found = state()
    key = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    found[key] = torch.zeros(32, width)
    with pytest.raises(dp.errors.BadInput, match=f"{base}.*{width} wide"):
        loaded(dp, found, sizes, shape, clip)


def test_sdxl_and_a_clip_without_projection_are_refused(dp, state, sizes, shape, tiny):
    """The authors' text needs CLIP-L's projection: SDXL's encoders, and a checkpoint's CLIP, do not have it."""
    teacher = dp.authors.teacher_of(state(), shape)
    model, vae = dp.own.own_model(teacher.unet, sizes), dp.own.own_vae(teacher.vae, sizes)
    with pytest.raises(dp.errors.MismatchedBackbone, match="clip_l"):
        dp.residuals.ResidualComfyBackbone(model, tiny.clip("sdxl"), vae)
    clip = tiny.clip("sd15")
    with torch.no_grad():
        clip.cond_stage_model.clip_l.transformer.text_projection.weight.copy_(torch.eye(WIDTH))
    backbone = dp.residuals.ResidualComfyBackbone(model, clip, vae)
    scorer = dp.scorer.DpIqa(backbone, dp.authors.academic_head(backbone, teacher))
    with pytest.raises(dp.errors.MismatchedBackbone, match="projection"):
        scorer.score(torch.rand(1, 3, 64, 64))


class Planted:
    """Would run on a plain unpickling."""

    def __reduce__(self):
        return (print, ("pwned",))


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"a": 1}, {}, torch.zeros(3), {"model": {"a": torch.zeros(1)}}, {"x": Planted()}],
    ids=["list", "numbers", "empty", "tensor", "nested", "code"],
)
def test_a_pickle_that_is_no_state_dict_is_refused(dp, tmp_path, capsys, content):
    path = tmp_path / "some.pth"
    torch.save(content, path)
    with pytest.raises(dp.errors.UnreadableFile, match="state dict of tensors"):
        dp.authors.read_state(path)
    assert "pwned" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"\x80\x04garbage", b"PK\x03\x04torn"])
def test_damaged_files(dp, tmp_path, content):
    path = tmp_path / "some.pth"
    path.write_bytes(content)
    with pytest.raises(dp.errors.UnreadableFile, match="state dict"):
        dp.authors.read_state(path)
    with pytest.raises(dp.errors.UnreadableFile, match="no such file"):
        dp.authors.read_state(tmp_path / "none.pth")
    with pytest.raises(dp.errors.UnreadableFile, match="teacher"):
        dp.authors.kind_of({"a.weight": torch.zeros(1)})


def test_a_web_page_is_no_checkpoint(dp, tmp_path):
    path = tmp_path / "some.pth"
    path.write_text("\n<!DOCTYPE html><html><body>Sign in</body></html>")
    with pytest.raises(dp.errors.UnreadableFile, match="not a checkpoint: a web page"):
        dp.authors.read_state(path)


def test_files_of_old_pytorch_are_read(dp, tmp_path):
    state = {"QFD.fc1.weight": torch.arange(6.0).view(2, 3), "gamma": torch.ones(1).half()}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = dp.authors.read_state(tmp_path / "old.pth")
    assert all(torch.equal(found[name], value) for name, value in state.items())
    torch.save({"x": Planted()}, tmp_path / "code.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(dp.errors.UnreadableFile, match="state dict"):
        dp.authors.read_state(tmp_path / "code.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_every_damage_is_the_one_error(dp, tmp_path, zipped):
    """Bytes are changed at many places: what is read is a state dict still, or refused as a file."""
    whole, path, refused = tmp_path / "whole.pth", tmp_path / "some.pth", 0
    state = {f"QFD.fc{i}.weight": torch.zeros(2, i + 1) for i in range(3)}
    torch.save(state, whole, _use_new_zipfile_serialization=zipped)
    content = whole.read_bytes()
    draw = torch.Generator().manual_seed(0)
    for _ in range(200):
        places = torch.randint(len(content), (3,), generator=draw).tolist()
        damaged = bytearray(content)
        for place in places:
            damaged[place] ^= 0x5A
        path.write_bytes(bytes(damaged))
        try:
            assert dp.authors.read_state(path)
        except dp.errors.UnreadableFile:
            refused += 1
    assert refused > 10


# The student -----------------------------------------------------------------------------------------------------


def test_the_feature_network_is_torchvisions(dp, diffusers):
    """Same names, same sums, on the smallest of the family and with B7's epsilon and rounding on a deeper one."""
    import torchvision.models as models

    torch.manual_seed(0)
    for name, scaling in (("b0", dp.efficientnet.Scaling(1.0, 1.0, 1e-5)), ("b5", dp.efficientnet.Scaling(1.6, 2.2))):
        full = getattr(models, f"efficientnet_{name}")(weights=None).eval()
        ours = dp.efficientnet.EfficientNet(scaling).eval()
        ours.features.load_state_dict(full.features.state_dict())
        x = torch.rand(1, 3, 64, 96)
        with torch.no_grad():
            assert torch.allclose(ours(x), full.features(x), atol=1e-4)


def test_the_published_student_has_the_published_number_of_parameters(dp):
    with torch.device("meta"):
        network = dp.student.StudentNetwork()
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 81.0
    names = set(network.state_dict())
    assert {"base_model.features.0.0.weight", "conv_transpose.weight", "fc1.weight", "fc3.bias"} <= names


@pytest.fixture
def student(dp):
    """A student file's content, small."""
    torch.manual_seed(0)
    shape = dp.student.StudentShape(dp.efficientnet.Scaling(0.25, 0.5), grid=16, hidden=8)
    return shape, {name: value.clone() for name, value in dp.student.StudentNetwork(shape).state_dict().items()}


def test_a_students_file_runs(dp, student, tmp_path):
    shape, state = student
    state["base_model.classifier.1.weight"] = torch.zeros(3, 3)
    path = tmp_path / "student.pth"
    torch.save(state, path)
    read = dp.authors.read_state(path)
    assert dp.authors.kind_of(read) == "student"
    network = dp.authors.student_of(read, shape)
    images = torch.rand(2, 3, 128, 128)
    p = state
    with torch.no_grad():
        low = network.base_model.features(images)
        up = F.conv_transpose2d(low, p["conv_transpose.weight"], p["conv_transpose.bias"], stride=2, padding=1)
        x = F.interpolate(up, size=(16, 16)).flatten(1)
        for i in (1, 2):
            x = F.relu(F.linear(x, p[f"fc{i}.weight"], p[f"fc{i}.bias"]))
        expected = 100.0 * F.linear(x, p["fc3.weight"], p["fc3.bias"])[:, 0]
    scorer = dp.student_scorer.DpStudent(network, "digest", dp.nets.place(network), side=128)
    batch = scorer.score([*images, torch.full((3, 64, 64), float("nan"))])
    assert batch.values()[:2] == pytest.approx(expected.tolist(), abs=1e-3)
    assert "NaN" in batch[2].reason
    assert "academic use" in batch[0].attributes["warnings"][0]
    assert scorer.score(images[1:])[0].value == pytest.approx(batch[1].value, abs=1e-3)


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_the_students_kernel_is_the_files(dp, student, kernel):
    shape, _ = student
    state = dp.student.StudentNetwork(replace(shape, kernel=kernel)).state_dict()
    assert dp.authors.student_of(state, shape).shape.kernel == kernel


def test_a_students_keys_are_accounted_for(dp, student):
    shape, state = student
    with pytest.raises(dp.errors.BadInput, match=r"1 missing: fc3\.bias"):
        dp.authors.student_of({k: v for k, v in state.items() if k != "fc3.bias"}, shape)
    with pytest.raises(dp.errors.BadInput, match=r"1 unknown: fc4\.bias"):
        dp.authors.student_of({**state, "fc4.bias": torch.zeros(1)}, shape)
    with pytest.raises(dp.errors.BadInput, match=r"fc3.bias \[1\]"):
        dp.authors.student_of({**state, "fc3.bias": torch.zeros(2)}, shape)
