"""The rows on a loaded model, in a process of its own that has a ComfyUI on its path.

Run by ``core/hosts/comfyui/launch.py`` with the file to write the rows to, repeats and image side. The model has
random weights and the shape of a smaller SD 1.5: time does not depend on what weights hold.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInput
from ..taps.recorder import Recorder
from ..taps.reducers import mean
from .speed_dp_iqa import dp_iqa_rows
from .speed_genziqa import genziqa_rows
from .speed_guidance import GUIDED_SIDE, guidance_rows
from .speed_lgdm import lgdm_rows
from .speed_probe import probe_row
from .speed_row import SpeedRow, time_row
from .timing import Job, interleaved

_SIDE = 256
_LEVELS = (0.2, 0.3, 0.4)
_TEXTS = 4


def comfyui_rows(folder: Path, repeats: int, side: int = _SIDE) -> list[SpeedRow]:
    """Run this module in a process whose path holds the ComfyUI in ``folder``; images are ``side`` pixels square.

    Raises:
        BadInput: no ComfyUI there, or it did not start.
    """
    from ..hosts.comfyui import launch

    folder = Path(folder).expanduser().resolve()
    if not (folder / "comfy" / "samplers.py").is_file():
        raise BadInput("a ComfyUI folder (the one that holds main.py)", str(folder), "Fix the path.")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "rows.json"
        done = subprocess.run(
            launch.command(__name__, str(out), str(repeats), str(side)),
            cwd=scratch,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BadInput(f"a ComfyUI in {folder} that starts", done.stderr.strip()[-800:], "Start ComfyUI by itself.")
        return [SpeedRow(**row) for row in json.loads(out.read_text(encoding="utf-8"))]


def main(arguments: list[str]) -> int:
    """Measure, and write the rows to the file named first."""
    from ..hosts.comfyui import standalone

    out, repeats, side = arguments
    loaded = standalone.random_checkpoint()
    rows = measure(*loaded, repeats=int(repeats), side=int(side))
    rows += guidance_rows(*loaded, repeats=int(repeats), side=min(int(side), GUIDED_SIDE))
    rows += lgdm_rows(*loaded, repeats=int(repeats), side=min(int(side), GUIDED_SIDE))
    rows += dp_iqa_rows(*loaded, repeats=int(repeats), side=int(side))
    Path(out).write_text(json.dumps([row.to_dict() for row in rows]), encoding="utf-8")
    return 0


def measure(model: Any, clip: Any, vae: Any, *, repeats: int, side: int = _SIDE) -> list[SpeedRow]:
    """Rows on ComfyUI's MODEL, CLIP and VAE."""
    from ..hosts.comfyui.backbone import ComfyBackbone
    from ..methods.judge import Judge
    from ..methods.zero_shot import ZeroShot, ZeroShotOptions

    judge = Judge.load(model.load_device)
    before = weight_bytes()
    backbone = ComfyBackbone(model, clip, vae)
    scorer, rowwise = (ZeroShot(backbone, options=ZeroShotOptions(side=side, most_rows=most)) for most in (12, 1))
    images = list(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    bare = Bare(model, vae, backbone.embed(["good", "bad", "sharp", "blurred"]).tokens)
    probe = Recorder.of([tap for tap in backbone.family.taps if tap.name == "mid"], mean)
    z_t, sigma = torch.randn(4, 4, side // 8, side // 8), torch.full((4,), 0.3)
    text = backbone.embed(["good"] * 4)
    jobs: dict[str, Job] = {
        "judged": lambda: judge.score(images[:1]),
        "sampled": lambda: bare.sample(side),
        "one": lambda: scorer.score(images[:1]),
        "bare": lambda: bare.run(images[0]),
        "two": lambda: scorer.score(images),
        "rows": lambda: rowwise.score(images[:1]),
        "full": lambda: backbone.denoise(z_t, sigma, text),
        "early": lambda: backbone.features(z_t, sigma, text, probe),
    }
    row = partial(time_row, interleaved(jobs, repeats))
    size = f"{side}×{side} px, {repeats} interleaved runs"
    rows = [
        row(
            "one", "bare", name="zero_shot: over its bare calls", limit=1.05, detail=f"1 image of {size}; bare: {CALLS}"
        ),
        row("two", "one", factor=2, name="zero_shot: linear in images", limit=1.1, detail=f"2 images of {size}"),
        row("one", "rows", name="zero_shot: as many rows as fit over 1", limit=1.25, detail=f"1 image of {size}"),
        row(
            "early", "full", name="features: end at the middle block over whole", limit=0.9, detail=f"4 rows of {size}"
        ),
        row("judged", "sampled", name="judge: over sampling the image", limit=0.5, detail=f"{ATTEMPT} of {size}"),
        probe_row(model, backbone.embed(["good", "bad"]).tokens, repeats=repeats, side=side),
        _bytes_row(before, weight_bytes()),
    ]
    # After the bytes are counted: with LoRA over them, ComfyUI keeps the originals of changed weights.
    return [*rows, *genziqa_rows(model, clip, vae, repeats=repeats, side=side)]


CALLS = "1 VAE encode, 1 denoiser forward of 12 rows (2 pairs × 2 texts × 3 levels); texts embedded once in both"


#: The fewest steps that people sample with: with 20, judging is a fifth of that.
_STEPS = 4
ATTEMPT = f"1 image sampled in {_STEPS} euler steps of 2 rows and decoded, by the bare networks,"


class Bare:
    """The network calls that one image's zero-shot score cannot do without, on ComfyUI's own objects, and no more.

    Calls: ``vae.encode`` once, ``apply_model`` once with 12 rows. The texts are embedded before, as the scorer keeps
    them from its first call on.
    """

    def __init__(self, model: Any, vae: Any, tokens: Tensor) -> None:
        self._network, self._vae, self._device = model.model, vae, model.load_device
        self._context = tokens.to(self._device).repeat_interleave(len(_LEVELS), 0)
        self._sigma = torch.tensor(_LEVELS * _TEXTS, device=self._device)

    @torch.no_grad()
    def run(self, image: Tensor) -> float:
        """Encode, noise, one forward; reads one number back so that queued work is done."""
        latent = self._vae.encode(image[None].movedim(1, -1)).to(self._device)
        z = self._network.process_latent_in(latent).repeat(len(self._sigma), 1, 1, 1)
        z_t = z + self._sigma.view(-1, 1, 1, 1) * torch.randn_like(z)
        return float(self._network.apply_model(z_t, self._sigma, c_crossattn=self._context).mean())

    @torch.no_grad()
    def sample(self, side: int) -> float:
        """Euler steps with classifier-free guidance and one decode: less than what KSampler and VAE Decode do."""
        sigmas = torch.linspace(14.6, 0.0, _STEPS + 1, device=self._device)
        texts = self._context[:: len(_LEVELS)][:2]
        z = torch.randn(1, 4, side // 8, side // 8, device=self._device) * sigmas[0]
        for sigma, lower in pairwise(sigmas):
            good, bad = self._network.apply_model(z.repeat(2, 1, 1, 1), sigma.repeat(2), c_crossattn=texts)
            clean = bad + 7.0 * (good - bad)
            z = clean + (z - clean) * lower / sigma
        return float(self._vae.decode(self._network.process_latent_out(z)).mean())


def weight_bytes() -> int:
    """Bytes of all weights that live in this process, each storage once."""
    gc.collect()
    storages = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for value in gc.get_objects()
        if isinstance(value, torch.nn.Parameter)
    }
    return sum(storages.values())


def _bytes_row(before: int, after: int) -> SpeedRow:
    detail = f"{after} bytes of weights in the process after scoring over {before} before: no second copy"
    return SpeedRow("zero_shot: bytes of the user's model", after / before, 1.0, "bytes", detail)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
