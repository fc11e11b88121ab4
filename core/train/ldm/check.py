"""What a trained model is worth, by figures: reconstruction, words against damage, and samples against training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image
from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ...contact_sheet import contact_sheet
from ...data.distortions import distort
from ...files import whole_file
from ...hosts.diffusers.embedded import load_embedded
from .denoiser import signal_shares
from .measure import reconstruction_psnr
from .pictures import Collection, Picture, centre_views, load_collection, some_of, step_generator

#: Damage → the words that should fit it and those that should fit the untouched picture.
PAIRS = {
    "gaussian_blur": ("very blurry", "sharp"),
    "white_noise": ("very noisy", "clean"),
    "jpeg": ("very jpeg artifacts", "clean"),
}
CAPTIONS = (
    "sharp, high quality, landscape",
    "sharp, high quality, photo of a portrait",
    "sharp, high quality, photo of a building",
    "clean, good photo, photo of an animal",
    "very blurry, bad photo, landscape",
    "very noisy, bad photo, photo of a portrait",
    "extremely jpeg artifacts, worst quality, photo of a building",
    "very dark, bad photo, landscape",
)
_SEVERITY = 4
_LEVELS = (100, 250, 400)
_DRAWS = 2
_SIDE = 24


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What to check and how much of it."""

    model: Path
    pictures: Path
    out: Path
    size: int = 256
    held_back: int = 40
    samples_per_caption: int = 2
    steps: int = 30
    guidance: float = 3.0
    seed: int = 0
    device: str = "cpu"


def check(request: CheckRequest) -> dict[str, Any]:
    """Measure a model folder; writes ``samples.jpg`` and ``neighbours.jpg`` (each sample beside its nearest crop).

    Returns:
        ``size`` and ``held_back`` (how it was measured), ``psnr`` (mean, dB), ``auc`` by kind of damage, ``nearest``
        (similarity of each sample to its nearest training crop) and ``nearest_held_back`` (the same of held-back
        pictures, which are certainly no copies).
    """
    collection = load_collection(request.pictures, least=request.size)
    held = some_of(collection.held_back, request.held_back)
    pipeline = load_embedded(request.model).to(request.device)
    pipeline.set_progress_bar_config(disable=True)
    vae = pipeline.vae
    assert isinstance(vae, AutoencoderTiny)
    figures: dict[str, Any] = {"size": request.size, "held_back": len(held)}
    figures |= {"psnr": round(fmean(reconstruction_psnr(vae, held, request.size)), 2)}
    figures["auc"] = {kind: round(separation(pipeline, held, kind, request), 3) for kind in PAIRS}
    captions = [caption for caption in CAPTIONS for _ in range(request.samples_per_caption)]
    samples = sample(pipeline, captions, request)
    figures |= _neighbours(samples, captions, held, collection, request)
    _write_sheet(samples, captions, request.out / "samples.jpg")
    return figures


@torch.no_grad()
def separation(
    pipeline: StableDiffusionPipeline, pictures: Sequence[Picture], kind: str, request: CheckRequest
) -> float:
    """AUC with which the gain of the damaged over the clean words tells damaged pictures from untouched ones."""
    damaged_words, clean_words = PAIRS[kind]
    words = _embed(pipeline, [damaged_words, clean_words])
    clean = centre_views(pictures, request.size)
    damaged = torch.stack([distort(view, kind, _SEVERITY, seed) for seed, view in enumerate(clean, 1_000_003)])
    gains = [
        [_gain(pipeline, view, words, request) for view in tqdm(views, desc=kind, leave=False, disable=None)]
        for views in (damaged, clean)
    ]
    statistic = mannwhitneyu(gains[0], gains[1]).statistic
    return float(statistic) / (len(gains[0]) * len(gains[1]))


def _gain(pipeline: StableDiffusionPipeline, view: Tensor, words: Tensor, request: CheckRequest) -> float:
    """How much less the error is under the first words than under the second, over levels and draws."""
    scale = pipeline.vae.config["scaling_factor"]
    z = pipeline.vae.encode((view[None] * 2 - 1).to(request.device)).latents * scale
    levels = torch.tensor([level for level in _LEVELS for _ in range(_DRAWS)], device=request.device)
    share = signal_shares()[levels.cpu()].to(z)[:, None, None, None]
    noise = torch.randn((len(levels), *z.shape[1:]), generator=step_generator(request.seed, 0)).to(z)
    noised = share.sqrt() * z + (1 - share).sqrt() * noise
    errors = []
    for row in words:
        guess = pipeline.unet(noised, levels, encoder_hidden_states=row[None].expand(len(levels), -1, -1)).sample
        errors.append(float((guess - noise).square().mean()))
    return errors[1] - errors[0]


def _embed(pipeline: StableDiffusionPipeline, texts: list[str]) -> Tensor:
    ids = pipeline.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return pipeline.text_encoder(ids.to(pipeline.device)).last_hidden_state


def sample(pipeline: StableDiffusionPipeline, captions: Sequence[str], request: CheckRequest) -> Tensor:
    """One picture a caption, [N, 3, size, size] in [0, 1]."""
    made: list[Tensor] = []
    for place, caption in enumerate(tqdm(captions, desc="samples", disable=None)):
        draw = torch.Generator().manual_seed(request.seed + place)
        result: Any = pipeline(
            caption,
            height=request.size,
            width=request.size,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            generator=draw,
            output_type="pt",
        )
        made.append(result.images[0].float().cpu())
    return torch.stack(made)


def _neighbours(
    samples: Tensor, captions: list[str], held: Sequence[Picture], collection: Collection, request: CheckRequest
) -> dict[str, Any]:
    found = _nearest(torch.cat([samples, centre_views(held, request.size)]), collection.train)
    values, count = found.values, len(samples)
    nearest, reference = values[:count], values[count:]
    rows = torch.cat(
        [F.interpolate(samples, size=(128, 128), mode="area"), F.interpolate(found.crops[:count], size=(128, 128))]
    )
    words = [*captions, *(f"{value:.2f} {name}" for value, name in zip(nearest, found.names, strict=False))]
    _write_sheet(rows, words, request.out / "neighbours.jpg", columns=len(captions))
    return {
        "nearest": [round(value, 3) for value in nearest],
        "nearest_held_back": [round(value, 3) for value in sorted(reference)],
    }


def _crops(picture: Picture) -> Tensor:
    """Square windows of three sizes, as small as the comparison is made, and mirrored: [N, 3, side, side]."""
    pixels = picture.pixels.to(torch.float32) / 255.0
    crops: list[Tensor] = []
    for share in (1.0, 0.7, 0.5):
        for window in _windows(pixels, int(min(pixels.shape[1:]) * share)):
            small = F.interpolate(window[None], size=(_SIDE, _SIDE), mode="bilinear", antialias=True)[0]
            crops += [small, small.flip(-1)]
    return torch.stack(crops)


def _windows(pixels: Tensor, side: int) -> list[Tensor]:
    height, width = pixels.shape[1:]
    tops, lefts = (
        torch.linspace(0, room - side, 1 + 2 * math.ceil((room - side) / side)).long().tolist()
        for room in (height, width)
    )
    return [pixels[:, top : top + side, left : left + side] for top in tops for left in lefts]


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """Of each image the highest correlation with a crop (1 is the same picture but for brightness), and which."""

    values: list[float]
    names: list[str]
    crops: Tensor


def _nearest(images: Tensor, pictures: Sequence[Picture]) -> _Neighbours:
    """One picture's crops at a time, so that a folder of any size fits into memory."""
    small = F.interpolate(images, size=(_SIDE, _SIDE), mode="bilinear", antialias=True)
    wanted = _unit(small)
    values, names = torch.full((len(images),), -torch.inf), [""] * len(images)
    nearest = torch.zeros_like(small)
    for picture in tqdm(pictures, desc="neighbours", unit="picture", disable=None):
        crops = _crops(picture)
        best = (wanted @ _unit(crops).T).max(dim=1)
        for place in (best.values > values).nonzero().flatten().tolist():
            names[place], nearest[place] = picture.name, crops[best.indices[place]]
        values = torch.maximum(values, best.values)
    return _Neighbours(values.tolist(), names, nearest)


def _unit(images: Tensor) -> Tensor:
    flat = images.flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)


def _write_sheet(images: Tensor, captions: list[str], path: Path, columns: int | None = None) -> None:
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    sheet = contact_sheet([Image.fromarray(one) for one in pixels], captions, columns=columns, cell=160)
    with whole_file(path) as temporary:
        sheet.convert("RGB").save(temporary, format="JPEG", quality=88, optimize=True, progressive=True)
