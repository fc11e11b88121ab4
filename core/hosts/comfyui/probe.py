"""A probe on the user's MODEL: features of the forwards that sampling makes anyway, and not one forward more.

Everything hangs on a clone that shares the weights: the taps, which are silent unless a recording is under way, and two
wrappers. One stands around a whole sampling and remembers it by the latents that came out; the other stands around each
call of the denoiser and records it when its noise level is wanted. Nothing that sampling computes is changed.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...backbone.contracts import Family
from ...backbone.families import find_row, recognise
from ...backbone.fingerprint import Fingerprint
from ...backbone.schedule import sigma_of_timestep
from ...errors import BadInput
from ...taps.finished_runs import COND, UNCOND, Finished, FinishedRuns, FirstOfEach, ProbePlan, Run
from ...taps.reducers import mean_std
from . import facts
from .identity import identity
from .tapping import PROBE_KEY, Tapping
from .taps import tapping_of, taps_of

#: The guider's lists of conditions, by the names that ComfyUI's own guiders give them.
_NAMES = {"positive": COND, "negative": UNCOND}


class Probe:
    """What a probed MODEL has recorded (LC_PROBE).

    Attributes:
        family: The model's family row.
        fingerprint: A sketch of its unpatched weights.
        identity: Its patches, as text to compare.
        timesteps: The noise levels as DDPM timesteps, highest first.
        plan: The taps and noise levels.
        session: Tells this probe's samplings from those of others, also of other days.
    """

    def __init__(self, model: Any, family: Family, timesteps: Sequence[int], plan: ProbePlan) -> None:
        self.family, self.timesteps, self.plan = family, tuple(timesteps), plan
        self.fingerprint: Fingerprint = facts.fingerprint(model, family.name)
        self.identity: Mapping[str, str] = identity(model, None, None)
        self.session = secrets.token_hex(4)
        self._runs = FinishedRuns(plan)

    def __deepcopy__(self, memo: dict[int, Any]) -> Probe:
        """Itself: ComfyUI deep-copies the options of every clone, and those must still record here."""
        return self

    def find(self, latents: Tensor) -> list[Finished | str]:
        """For each latent [N, …] the sampling that it came from, or why none is known."""
        return self._runs.find(latents)

    def add(self, run: Run, latents: Tensor) -> None:
        """Remember a sampling that is over."""
        self._runs.add(run, latents)


class _Watcher:
    """The two wrappers; holds the sampling under way."""

    def __init__(self, probe: Probe, tapping: Tapping) -> None:
        self._probe, self._tapping = probe, tapping
        self._run: Run | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Watcher:
        """Itself, as :class:`Probe`."""
        return self

    def sampling(self, executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Around ``CFGGuider.outer_sample``; what is interrupted or fails is forgotten."""
        around, run = self._run, Run(rows=len(noise), text=_text_of(executor.class_obj))
        self._run = run
        try:
            latents = executor(noise, *args, **kwargs)
        finally:
            self._run = around
        if isinstance(latents, Tensor):
            self._probe.add(run, latents)
        return latents

    def evaluation(self, executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Around ``CFGGuider.predict_noise``: one call of the denoiser, with whatever guidance makes of it."""
        run, plan = self._run, self._probe.plan
        sigma = float(timestep.max())
        levels = [] if run is None else run.wanted(plan, sigma)
        if run is None or not levels or len(x) != run.rows:
            return executor(x, timestep, *args, **kwargs)
        recorder = FirstOfEach.of(plan.taps, mean_std)
        branches = _branches_of(executor.class_obj)
        with self._tapping.recording(recorder, call=0, rows=range(run.rows), stop=False, branches=branches):
            result = executor(x, timestep, *args, **kwargs)
        run.take(plan, levels, sigma, recorder)
        return result


def probe_model(
    model: Any, timesteps: Sequence[int], taps: Sequence[str] = (), *, most_bytes: int | None = None
) -> tuple[Any, Probe]:
    """A clone of a MODEL, and the probe that follows whatever is sampled with it.

    Args:
        model: MODEL, with whatever LoRA and other nodes the graph put on it.
        timesteps: DDPM timesteps of the noise levels to read; the forward nearest to each is taken.
        taps: Names of the feature taps; all when empty.
        most_bytes: Bound of the features kept.

    Raises:
        BadInput: no MODEL, or timesteps or taps that there are not.
        UnsupportedFamily: the model is of no known family.
    """
    if not hasattr(model, "get_model_object"):
        raise BadInput("a MODEL", type(model).__name__, "Connect the output of a checkpoint or diffusion model loader.")
    timesteps = sorted(timesteps, reverse=True)
    if not timesteps or len(set(timesteps)) < len(timesteps):
        raise BadInput("different timesteps, at least one", str(timesteps), "Write for example: 400, 200, 100")
    found = facts.model_facts(model)
    find_row(found)  # before the walk below, which is for known networks
    known = taps_of(model.model.diffusion_model)
    family = recognise(found, tuple(known.order))
    sigmas = tuple(sigma_of_timestep(t, family.prediction) for t in timesteps)
    bound = {} if most_bytes is None else {"most_bytes": most_bytes}
    probe = Probe(model, family, timesteps, ProbePlan(_taps(family, taps), sigmas, **bound))
    tapping = tapping_of(known, family.latent_channels)
    watcher = _Watcher(probe, tapping)
    clone = model.clone()
    tapping.install(clone, attention=False, key=PROBE_KEY)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, PROBE_KEY, watcher.sampling)
    clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, PROBE_KEY, watcher.evaluation)
    return clone, probe


def _taps(family: Family, names: Sequence[str]) -> tuple[Any, ...]:
    features = {tap.name: tap for tap in family.taps if tap.kind == "feature"}
    unknown = [name for name in names if name not in features]
    if unknown:
        raise BadInput(f"feature taps of this model ({', '.join(features)})", ", ".join(unknown), "Leave taps empty.")
    return tuple(tap for name, tap in features.items() if not names or name in names)


def _branches_of(guider: Any) -> Callable[[Mapping[str, Any]], list[str | None]]:
    """Tells the branch of each chunk by the guider's own lists: guiders number their conditions as they like.

    A condition is known by its uuid. Area conditions can stand in both lists; then its number decides, by what other
    chunks of that number were, and at last as ComfyUI's own guider numbers them.
    """
    lists: dict[str, set[str]] = {}
    for name, conditions in getattr(guider, "conds", {}).items():
        for condition in conditions or ():
            lists.setdefault(str(condition.get("uuid")), set()).add(name)
    numbered: dict[int, str] = {}

    def branches(options: Mapping[str, Any]) -> list[str | None]:
        chunks = list(zip(options["cond_or_uncond"], map(str, options["uuids"]), strict=True))
        for number, uuid in chunks:
            if len(names := lists.get(uuid, set())) == 1:
                numbered[number] = next(iter(names))
        found: list[str | None] = []
        for number, uuid in chunks:
            name = _NAMES.get(numbered.get(number) or ("positive", "negative", "")[min(number, 2)])
            found.append(None if name is None else f"{name}/{uuid}")
        return found

    return branches


def _text_of(guider: Any) -> str:
    """A digest of the positive conditions' text: which samplings share a prompt."""
    found = hashlib.blake2b(digest_size=8)
    for condition in getattr(guider, "conds", {}).get("positive") or ():
        tokens = condition.get("cross_attn")
        if isinstance(tokens, Tensor):
            found.update(tokens.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return found.hexdigest()
