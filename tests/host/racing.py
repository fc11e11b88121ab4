"""What the tests of Best Of N share: tasks, looks that drop, and what KSampler makes of a seed alone."""

import importlib
from types import SimpleNamespace

import torch

PLAN = {"steps": 6, "cfg": 3.0, "scheduler": "normal", "denoise": 1.0}


def bench(comfyui):
    """The host's rooms and the helpers below under one name."""
    rooms = [
        importlib.import_module(f"latent_critic.core.hosts.comfyui.{name}")
        for name in ("ahead", "best_of", "sampling_task")
    ]
    found = {name: value for room in rooms for name, value in vars(room).items()}

    def lone(model, seed, positive, negative, latent, sampler="euler", **plan):
        """The latents of a KSampler."""
        p = {**PLAN, **plan}
        which = (model, seed, p["steps"], p["cfg"], sampler, p["scheduler"], positive, negative, latent)
        with torch.inference_mode():
            return comfyui.common_ksampler(*which, denoise=p["denoise"])[0]["samples"]

    def run(task, marks=(), on_look=None, on_step=nothing, ahead=0):
        with torch.inference_mode():
            return found["sample"](task, [(*mark, ahead) for mark in marks], on_look or drop_to(), on_step)

    shared = {
        "flow_words": flow_words,
        "PLAN": PLAN,
        "empty": empty,
        "drop_to": drop_to,
        "guided": guided,
        "nothing": nothing,
        "same": same,
    }
    return SimpleNamespace(**{**found, **shared, "lone": lone, "run": run})


def empty(channels=4, side=8, rows=1):
    """An empty LATENT."""
    return {"samples": torch.zeros(rows, channels, side, side)}


def drop_to(*kept):
    """At each look keep the last so many live rows; every look is noted."""
    seen, counts = [], list(kept)

    def on_look(moment, live):
        seen.append((moment.step, moment.sigma, moment.share, list(live), moment.clean(live)))
        return live[-counts.pop(0) :]

    on_look.seen = seen
    return on_look


def flow_words(model):
    """Conditioning that a tiny flow model takes, in its own widths."""
    widths = model.model.diffusion_model.params
    options = {"pooled_output": torch.randn(1, widths.vec_in_dim), "guidance": 3.0}
    return [[torch.randn(1, 7, widths.context_in_dim), options]]


def nothing(*_):
    """Shows no progress."""


def guided(model, yes, no, cfg=3.0):
    """A CFGGuider."""
    from comfy.samplers import CFGGuider

    guider = CFGGuider(model)
    guider.set_conds(yes, no)
    guider.set_cfg(cfg)
    return guider


def same(found, alone):
    """Within the promised tolerance."""
    assert found.shape == alone.shape
    assert float((found - alone).abs().max()) <= 1e-3 * float(alone.std())
