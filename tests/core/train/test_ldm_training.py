"""The run of a training: resumed, killed, exported."""

import json

import pytest
import torch
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.nets import critic_ldm
from safetensors.torch import load_file

STAGES = ("autoencoder", "denoiser")


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_equals_an_uninterrupted_one(ldm, request_for, tmp_path, stage):
    for steps in (2, 4):
        ldm.run.train_ldm(request_for(tmp_path / "pieces", stage=stage, steps=steps))
    ldm.run.train_ldm(request_for(tmp_path / "whole", stage=stage, steps=4))
    pieces, whole = (load_file(tmp_path / run / f"{stage}.safetensors") for run in ("pieces", "whole"))
    assert pieces.keys() == whole.keys()
    assert any(name.startswith("adam/exp_avg_sq/") for name in whole)
    # float32 sums may be taken in another order after a reload, no more than that
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name], rtol=1e-5, atol=1e-6)


def test_training_changes_every_weight_it_should_and_no_other(ldm, request_for, tmp_path):
    ldm.run.train_ldm(request_for(tmp_path, stage="denoiser", steps=1))
    before = load_file(tmp_path / "denoiser.safetensors")
    ldm.run.train_ldm(request_for(tmp_path, stage="denoiser", steps=3))
    after = load_file(tmp_path / "denoiser.safetensors")
    changed = {name for name in before if name.startswith("weights/") and not torch.equal(before[name], after[name])}
    assert not any(name.startswith("weights/vae/") for name in changed)
    assert {name.split("/")[1] for name in changed} == {"unet", "text_encoder"}
    assert any("rows" in name for name in changed)


def test_the_autoencoder_learns(ldm, request_for, tmp_path):
    first = ldm.run.train_ldm(request_for(tmp_path, steps=1, batch=8, pool=8))
    last = ldm.run.train_ldm(request_for(tmp_path, steps=60, batch=8, pool=8, rate=3e-3, shallow=30, coarse=45))
    assert last["psnr_mean"] > first["psnr_mean"] + 1.0


def test_a_save_that_fails_leaves_the_last_state_whole(ldm, request_for, tmp_path, monkeypatch):
    ldm.run.train_ldm(request_for(tmp_path, steps=2))

    def torn(tensors, path, metadata):
        path.write_bytes(b"half a file")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ldm.state, "save_file", torn)
        with pytest.raises(KeyboardInterrupt):
            ldm.run.train_ldm(request_for(tmp_path, steps=3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["autoencoder.safetensors", "log.jsonl"]
    assert ldm.run.train_ldm(request_for(tmp_path, steps=3))["made"] == 1


def test_the_log_forgets_what_was_not_saved(ldm, tmp_path):
    log = tmp_path / "log.jsonl"
    rows = [{"stage": stage, "step": step} for stage in STAGES for step in (20, 40)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"stage": "auto')
    ldm.loop.forget_after(log, "autoencoder", 30)
    kept = [json.loads(line) for line in log.read_text().splitlines()]
    assert kept == [row for row in rows if row != {"stage": "autoencoder", "step": 40}]


def test_the_record_tells_steps_and_sides(ldm, tmp_path):
    log = tmp_path / "log.jsonl"
    rows = [{"stage": "autoencoder", "step": step, "size": size} for step, size in ((20, 128), (40, 64), (60, 64))]
    rows += [{"stage": "autoencoder", "piece": True, "step": step, "psnr_mean": step / 2} for step in (40, 60)]
    rows += [{"stage": "denoiser", "piece": True, "step": 3}, {"stage": "other", "step": 20, "size": 8}]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"stage": "denoi')
    assert ldm.loop.record(log) == {
        "autoencoder": {"steps": 60, "sides": [64, 128]},
        "denoiser": {"steps": 3},
        "psnr": {"psnr_mean": 30.0},
    }


def test_a_damaged_state_is_named(ldm, request_for, tmp_path):
    (tmp_path / "autoencoder.safetensors").write_bytes(b"not a state")
    with pytest.raises(UnreadableFile, match=r"autoencoder\.safetensors"):
        ldm.run.train_ldm(request_for(tmp_path, steps=1))


def test_bad_settings_are_refused(request_for, tmp_path):
    with pytest.raises(BadInput, match="divisible by 32"):
        request_for(tmp_path, size=40)
    with pytest.raises(BadInput, match="stage"):
        request_for(tmp_path, stage="decoder")


def test_exported_weights_make_a_diffusers_pipeline_and_a_new_start(ldm, request_for, tmp_path):
    from latent_critic.core.hosts.diffusers.embedded import load_embedded

    model = tmp_path / "model"
    ldm.run.train_ldm(request_for(tmp_path / "run", steps=2, export=model))
    ldm.run.train_ldm(request_for(tmp_path / "run", stage="denoiser", steps=2, start=model, export=model))
    pipeline = load_embedded(model)
    pipeline.set_progress_bar_config(disable=True)
    draw = torch.Generator().manual_seed(0)
    images = pipeline("a sharp photo", height=64, width=64, num_inference_steps=2, generator=draw, output_type="pt")
    assert images.images.shape == (1, 3, 64, 64)
    assert bool(torch.isfinite(images.images).all())
    result = ldm.run.train_ldm(request_for(tmp_path / "later", stage="denoiser", steps=3, start=model))
    assert (result["step"], result["made"]) == (3, 1)
    record = ldm.bundle.read_record(model)
    assert (record["autoencoder"]["steps"], record["denoiser"]["steps"]) == (2, 2)
    assert record["psnr"]["psnr_pictures"] == 2
    assert record["pictures"] == {"train": 10, "held_back": 2}
    ldm.run.train_ldm(request_for(tmp_path / "run", stage="denoiser", steps=2, export=tmp_path / "again"))
    assert ldm.bundle.read_record(tmp_path / "again") == record


def test_the_autoencoder_of_the_pipeline_has_latents_of_unit_spread(ldm, request_for, tmp_path, pictures):
    ldm.run.train_ldm(request_for(tmp_path / "run", steps=2, export=tmp_path / "model"))
    scale = critic_ldm.read_config(tmp_path / "model", "vae")["scaling_factor"]
    networks = ldm.models.load(tmp_path / "model")
    views = ldm.pictures.centre_views(ldm.pictures.load_collection(pictures, least=32).train, 32)
    with torch.no_grad():
        spread = float(ldm.autoencoder.encode(networks.vae, views).std()) * scale
    assert 0.7 < spread < 1.4
