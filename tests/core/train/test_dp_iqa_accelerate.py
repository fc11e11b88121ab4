"""A real ``accelerate launch`` of ``train dp-iqa`` with two processes on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from latent_critic.core.methods.dp_iqa_file import load_dp_iqa
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[3]
#: torchvision's binary may not fit torch on a machine without a GPU; see tests/conftest.py. Three sentences are enough.
_START = """
import importlib.util
spec = importlib.util.spec_from_file_location("finder", {finder!r})
finder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(finder)
kept = finder.declare_torchvision_ops()
import latent_critic.core.methods.dp_iqa_text as texts
texts.sentences = lambda: ("a photo of a human", "a photo of a plant", "a photo of night")
from latent_critic.core.cli.main import main
raise SystemExit(main())
"""
_LAUNCH = (
    "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
)  # fmt: skip


@pytest.mark.slow
def test_two_launched_processes_train_one_head(tiny_folder, rated, tmp_path):
    """The weights after three steps are one process's: each took half of every step's pictures."""
    table, script = tmp_path / "rated.csv", tmp_path / "start.py"
    table.write_text("".join(f"{image.path},{image.mos / 20:.3f},{image.group}\n" for image in rated.images))
    script.write_text(_START.format(finder=str(ROOT / ".ci" / "comfyui.py")))
    sizes = "--width 8 --kernel 1 --squeeze 4 --thin 4 --cells 4 --hidden 8 --text-hidden 4 --image-width 4 --side 64"

    def train(name, *before, more=()):
        run = tmp_path / name
        arguments = [
            "train", "dp-iqa", "--data", f"csv={table}:0:5", "--model", str(tiny_folder), "--out",
            f"{run}.safetensors", "--run", str(run), "--steps", "3", "--batch", "4", "--validate-on", "6",
            "--share", "0.3", "--rate", "1e-2", "--by-group", *sizes.split(),
        ]  # fmt: skip
        settings = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, *before, str(script), *arguments, *more]
        done = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stderr, load_file(run / "state.safetensors"), load_dp_iqa(f"{run}.safetensors")

    _, alone, head = train("alone")
    told, launched, both = train("launched", "-m", *_LAUNCH, more=("--accelerate",))
    assert told.count("step 3") == 1
    names = [name for name in alone if not name.startswith("adam/")]
    assert names
    for name in names:
        torch.testing.assert_close(launched[name], alone[name], rtol=1e-3, atol=1e-3)
    assert both.meta.validation["rmse"] == pytest.approx(head.meta.validation["rmse"], abs=0.1)
