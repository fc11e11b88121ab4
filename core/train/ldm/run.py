"""One piece of training, from request to saved state, figures and model folder."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import nn

from ...errors import BadInput
from ...files import write_text
from ...hosts.diffusers.embedded import fill, make_tokenizer
from ...nets import critic_ldm
from . import loop
from . import state as states
from .autoencoder import AutoencoderTask
from .bundle import RECORD, described, read_record, write_bundle
from .denoiser import DenoiserTask
from .measure import latent_spread, reconstruction_psnr
from .models import Networks, build, load
from .pictures import Collection, load_collection, some_of
from .settings import Request
from .state import State

LOG = "log.jsonl"
_DECAY = {"autoencoder": 0.0, "denoiser": 0.01}


def train_ldm(request: Request) -> dict[str, Any]:
    """Train for the minutes or steps of the request, continue what the run folder holds, write what was asked for.

    Returns:
        Steps in all, steps per second, the last loss, and (autoencoder) PSNR on the held-back pictures.

    Raises:
        BadInput: too few pictures, settings that do not fit, or a run that was begun with other sizes.
        UnreadableFile: a damaged picture, state or model folder.
    """
    collection = load_collection(request.pictures, least=request.size, memory=request.kept_bytes)
    networks, record = _starting_point(request)
    state = _prepare(request, networks, record)
    task: loop.Task
    if request.stage == "autoencoder":
        task = AutoencoderTask(state, collection.train, request)
    else:
        task = DenoiserTask(
            state, collection.train, request, make_tokenizer(critic_ldm.read_merges(critic_ldm.SHIPPED))
        )
    log = request.run / LOG
    if request.start is not None and (request.start / LOG).exists() and not log.exists():
        write_text(log, (request.start / LOG).read_text(encoding="utf-8"))
    loop.forget_after(log, request.stage, state.step)
    result: dict[str, Any] = dict(loop.run(task, request, state_file(request), log))
    averaged = _averaged(networks, state)
    if request.stage == "autoencoder":
        result |= _measured(averaged.vae, collection, request)
    loop.append(log, [{"stage": request.stage, "piece": True, "device": request.device, **result}])
    if request.export is not None:
        counts = {"train": len(collection.train), "held_back": len(collection.held_back)}
        record |= loop.record(log) | {"seed": request.seed, "pictures": counts}
        write_bundle(averaged, request.export, critic_ldm.read_merges(critic_ldm.SHIPPED), record)
        write_text(request.export / LOG, log.read_text(encoding="utf-8"))
    return result


def state_file(request: Request) -> Path:
    """Where a stage's state lies in the run folder."""
    return request.run / f"{request.stage}.safetensors"


def _starting_point(request: Request) -> tuple[Networks, dict[str, Any]]:
    """Networks and record of the start folder, or random ones; the run's own autoencoder goes before the folder's."""
    record: dict[str, Any] = {"autoencoder": {"steps": 0}, "denoiser": {"steps": 0}}
    if request.start is not None and (request.start / RECORD).exists():
        networks, record = load(request.start), record | read_record(request.start)
    else:
        networks = build(request.architecture, request.seed)
    own = request.run / "autoencoder.safetensors"
    if request.stage == "denoiser" and own.exists():
        fill(networks.vae, states.averaged_part(own, "vae"))
    return networks, record


def _prepare(request: Request, networks: Networks, record: dict[str, Any]) -> State:
    for part in critic_ldm.PARTS:
        module = networks.part(part).to(torch.device(request.device))
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (missing in torch's overloads)
    vae: dict[str, nn.Module] = {"vae": networks.vae}
    rest: dict[str, nn.Module] = {"unet": networks.unet, "text_encoder": networks.text}
    trained, frozen = (vae, {}) if request.stage == "autoencoder" else (rest, vae)
    for module in frozen.values():
        module.requires_grad_(False)
    made = int(record[request.stage]["steps"])
    state = states.begin(trained, frozen, made, _DECAY[request.stage])
    sizes = described(networks)["sizes"] if request.stage == "denoiser" else {}
    if state_file(request).exists():
        _check_sizes(states.notes_of(state_file(request)).get("sizes", sizes), sizes)
        states.restore(state, state_file(request))
    state.notes |= {"sizes": sizes} if sizes else {}
    return state


def _check_sizes(begun: dict[str, Any], sizes: dict[str, Any]) -> None:
    """By name, not by weight; and other numbers of heads fit the same weights, but make another network."""
    other = [name for name in sizes if begun.get(name, sizes[name]) != sizes[name]]
    if other:
        expected, got = (", ".join(f"{name} {told[name]}" for name in other) for told in (begun, sizes))
        remedy = "Give the sizes that the run was begun with (--from-scratch, …), or name another run folder."
        raise BadInput(f"the run's own {expected}", got, remedy)


def _averaged(networks: Networks, state: State) -> Networks:
    """The networks with their averaged weights (in place: training is over)."""
    for part, module in state.trained.items():
        module.load_state_dict(state.averaged(part))
    if "latent_scale" in state.notes:
        networks.vae.register_to_config(scaling_factor=state.notes["latent_scale"])
    return networks


def _measured(vae: AutoencoderTiny, collection: Collection, request: Request) -> dict[str, Any]:
    size = request.architecture.native_size
    figures = reconstruction_psnr(vae, some_of(collection.held_back, request.measured), size)
    spread = latent_spread(vae, collection.train, request.size, request.seed)
    vae.register_to_config(scaling_factor=1.0 / spread)
    return {
        "psnr_mean": round(fmean(figures), 3),
        "psnr_median": round(sorted(figures)[len(figures) // 2], 3),
        "psnr_size": size,
        "psnr_pictures": len(figures),
        "latent_spread": round(spread, 4),
    }
