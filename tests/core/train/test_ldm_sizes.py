"""Sizes of the networks: chosen from scratch, kept by a run, told by the record."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from latent_critic.core.cli.main import main
from latent_critic.core.errors import BadInput
from latent_critic.core.train.ldm.settings import Architecture

TINY = ("--unet-channels", "32", "64", "--unet-heads", "2", "--text-width", "32", "--text-layers", "1")


@pytest.fixture
def train(pictures, tmp_path):
    """`train("denoiser", 1, *options)` → exit code of the command, always in the same run folder."""

    def run(stage, steps, *options):
        told = ["--pictures", str(pictures), "--run", str(tmp_path / "run"), "--stage", stage, "--steps", str(steps)]
        few = ["--size", "32", "--batch", "2", "--pool", "2", "--measured", "1", "--threads", "1"]
        return main(["train", "ldm", *told, *few, *options])

    return run


def test_sizes_from_scratch_are_those_of_the_exported_model(train, diffusers, tmp_path, capsys):
    from latent_critic.core.hosts.diffusers.embedded import load_embedded

    model = tmp_path / "model"
    assert train("autoencoder", 3835) == 0  # goes on from the shipped one; the denoiser begins anew on it
    assert train("denoiser", 1, "--from-scratch", *TINY, "--export", str(model)) == 0
    pipeline = load_embedded(model)
    assert list(pipeline.unet.config["block_out_channels"]) == [32, 64]
    assert pipeline.unet.config["attention_head_dim"] == 2
    assert (pipeline.text_encoder.config.hidden_size, pipeline.text_encoder.config.num_hidden_layers) == (32, 1)
    record = json.loads((model / "training.json").read_text())
    assert Architecture(**{**record["sizes"], "unet_channels": (32, 64)}) == Architecture(
        unet_channels=(32, 64), unet_heads=2, text_width=32, text_layers=1
    )
    for part, module in (("vae", pipeline.vae), ("unet", pipeline.unet)):
        assert record["parameters"][part] == sum(weight.numel() for weight in module.parameters())
    assert (record["autoencoder"]["steps"], record["denoiser"]["steps"]) == (3835, 1)

    capsys.readouterr()
    for other, named in (
        ((*TINY[:6], "64", *TINY[7:]), "text_width 32; got text_width 64"),
        ((*TINY[:4], "4", *TINY[5:]), "unet_heads 2; got unet_heads 4"),  # the same weights
        (TINY[:-2], "text_layers 1; got text_layers 2"),
    ):
        assert train("denoiser", 2, "--from-scratch", *other) == 2
        assert named in capsys.readouterr().err
    assert train("denoiser", 2) == 2
    assert "unet_channels [32, 64]" in capsys.readouterr().err
    assert train("denoiser", 2, "--from-scratch", *TINY) == 0


def test_an_older_state_of_other_sizes_is_refused_by_its_weights(ldm, sizes, request_for, tmp_path):
    """It does not tell its sizes."""
    request = request_for(tmp_path, stage="denoiser", steps=1)
    ldm.run.train_ldm(request)
    file = ldm.run.state_file(request)
    networks, wider = ldm.models.build(sizes, 0), ldm.models.build(replace(sizes, text_width=64), 0)
    state = ldm.state.begin({"unet": networks.unet, "text_encoder": networks.text}, {"vae": networks.vae}, 0, 0.0)
    ldm.state.restore(state, file)
    del state.notes["sizes"]
    ldm.state.save(state, file)
    ldm.run.train_ldm(replace(request, steps=2))
    state = ldm.state.begin({"unet": wider.unet, "text_encoder": wider.text}, {"vae": wider.vae}, 0, 0.0)
    with pytest.raises(BadInput, match=r"to_k\.weight \[32, 64\], there \[32, 32\]") as raised:
        ldm.state.restore(state, file)
    assert len(str(raised.value)) < 500
    assert state.step == 0


@pytest.mark.parametrize("told", [TINY, TINY[:3], TINY[-2:]])
def test_sizes_of_weights_that_go_on_are_refused(train, told, capsys):
    assert train("denoiser", 1, *told) == 2
    assert "--from-scratch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("--unet-channels 48", "multiples of 32"),
        ("--unet-channels 64 96", "multiples of the first"),
        ("--unet-channels 0", "multiples of 32"),
        ("--unet-heads 5", "heads divide"),
        ("--unet-heads 0", "at least 1"),
        ("--text-width 66", "heads divide"),
        ("--text-width 0", "at least 1"),
        ("--text-layers 0", "at least 1"),
    ],
)
def test_sizes_that_make_no_network_are_refused(train, told, reason, capsys):
    assert train("denoiser", 1, "--from-scratch", *told.split()) == 2
    assert reason in capsys.readouterr().err


def test_nothing_heavy_is_loaded_before_the_sizes_are_refused(tmp_path):
    code = (
        "import sys\nfrom latent_critic.core.cli.main import main\n"
        "code = main(['train', 'ldm', '--pictures', 'none', '--run', 'none', '--unet-heads', '2'])\n"
        "heavy = {'torch', 'numpy', 'diffusers'} & set(sys.modules)\nsys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "--from-scratch" in done.stderr


def test_weights_of_another_size_are_named(ldm, sizes):
    from latent_critic.core.hosts.diffusers.embedded import fill

    networks, wider = ldm.models.build(sizes, seed=0), ldm.models.build(Architecture(autoencoder_width=32), seed=0)
    with pytest.raises(BadInput, match="sizes of this AutoencoderTiny"):
        fill(networks.vae, wider.vae.state_dict())
