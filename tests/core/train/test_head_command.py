"""``latent-critic head``: into the authors' layout and back, and what a head's file says of its model."""

from dataclasses import replace

import pytest
import torch
from latent_critic.core.cli.main import main
from latent_critic.core.methods.genziqa_file import is_half, load_genziqa, save_genziqa
from latent_critic.core.methods.genziqa_head import untrained
from latent_critic.core.methods.genziqa_settings import GenzSettings


@pytest.fixture
def head(diffusers, tiny_folder, tmp_path):
    """A head's file on the tiny model, whose LoRA does something."""
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.hosts.diffusers.loading import load_pipeline

    backbone = DiffusersBackbone(load_pipeline(str(tiny_folder), "cpu"))
    made = untrained(backbone, GenzSettings(side=64, timesteps=(9,)), context=2, rank=1, padding_mask=True)
    for _, up in made.lora.layers.values():
        up.normal_(generator=torch.Generator().manual_seed(1))
    save_genziqa(tmp_path / "head.safetensors", made)
    return tmp_path / "head.safetensors"


def said(capsys):
    return capsys.readouterr().err


def test_out_and_in_again(head, tiny_folder, tmp_path, capsys):
    files = ["--context", str(tmp_path / "context.pth"), "--lora", str(tmp_path / "lora.safetensors")]
    model = ["--model", str(tiny_folder)]
    assert main(["head", "export", "--head", str(head), *files, *model]) == 0
    back = tmp_path / "back.safetensors"
    told = ["--side", "64", "--temperature", "0.2", "--training-set", "FLIVE", "--calibrated-on", "photographs"]
    assert main(["head", "import", *files, *model, *told, "--out", str(back)]) == 0
    assert "LoRA of rank 1" in said(capsys)
    before, after = load_genziqa(head), load_genziqa(back)
    assert after.digest() == before.digest()
    assert (after.settings.side, after.settings.temperature) == (64, 0.2)
    assert (after.meta.training_set, after.meta.calibrated_on) == ("FLIVE", "photographs")
    assert main(["head", "import", *files, "--model", "embedded", "--out", str(back)]) == 2
    assert "ctx [N, 128]" in said(capsys)
    assert main(["head", "import", "--context", str(tmp_path / "none.pth"), *model, "--out", str(back)]) == 2
    assert "no such file" in said(capsys)
    assert main(["head", "export", "--head", str(head), *files]) == 2
    assert "fingerprint" in said(capsys)


@pytest.mark.parametrize("half", [False, True])
def test_an_old_head_is_told_its_models_parts(head, tiny_folder, capsys, half):
    made = load_genziqa(head)
    old = {name: value for name, value in made.meta.identity.items() if name not in ("vae_ends", "text_l")}
    assert len(old) == len(made.meta.identity) - 2
    save_genziqa(head, replace(made, meta=replace(made.meta, identity=old)), half=half)
    before = load_genziqa(head)
    assert main(["head", "stamp", "--head", str(head), "--model", str(tiny_folder)]) == 0
    assert "text_l, vae_ends added" in said(capsys)
    after = load_genziqa(head)
    assert after.meta.identity == made.meta.identity
    assert (after.digest(), is_half(head)) == (before.digest(), half)
    assert replace(after.meta, identity=old) == before.meta
    assert main(["head", "stamp", "--head", str(head), "--model", str(tiny_folder)]) == 0
    assert "nothing added" in said(capsys)


def test_a_head_of_another_model_is_not_stamped(head, tiny_folder, capsys):
    assert main(["head", "stamp", "--head", str(head)]) == 2
    assert "fingerprint" in said(capsys)
    made = load_genziqa(head)
    other = {**made.meta.identity, "diffusers_vae": "lc1:other::AAAA"}
    save_genziqa(head, replace(made, meta=replace(made.meta, identity=other)))
    kept = head.read_bytes()
    assert main(["head", "stamp", "--head", str(head), "--model", str(tiny_folder)]) == 2
    assert "VAE" in said(capsys)
    assert head.read_bytes() == kept
