"""Many seeds with guidance nodes: the winner is what its seed makes alone, whatever hangs on the model."""

import importlib

import pytest
import torch

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),
]
SEEDS = (5, 6, 7, 8)
SIGMAS = (12.0, 6.0, 1.0, 0.0)
#: Node → its module and widgets behind the model; how it is sampled is in the two sets below.
NODES = {
    "SelfAttentionGuidance": ("nodes_sag", (0.5, 2.0)),
    "TomePatchModel": ("nodes_tomesd", (0.5,)),
    "HyperTile": ("nodes_hypertile", (32, 2, 3, True)),
    "Mahiro": ("nodes_mahiro", ()),
    "TCFG": ("nodes_tcfg", ()),
    "CFGZeroStar": ("nodes_cfg", ()),
    "CFGNorm": ("nodes_cfg", (1.0,)),
    "FreeU": ("nodes_freelunch", (1.1, 1.2, 0.9, 0.2)),
    "FreeU_V2": ("nodes_freelunch", (1.3, 1.4, 0.9, 0.2)),
    "SkipLayerGuidanceDiTSimple": ("nodes_slg", (0.0, 1.0, "1", "1")),
    "RescaleCFG": ("nodes_model_advanced", (0.7,)),
    "PerturbedAttentionGuidance": ("nodes_pag", (3.0,)),
    "APG": ("nodes_apg", (1.0, 5.0, -0.5)),
}
TOGETHER = {"RescaleCFG", "PerturbedAttentionGuidance", "APG", "CFGZeroStar", "CFGNorm", "FreeU", "FreeU_V2"}


def made(module, node, *args):
    """What a core node gives for these inputs, in ComfyUI's older and newer way of writing nodes."""
    kind = getattr(importlib.import_module(f"comfy_extras.{module}"), node)
    found = kind.execute(*args) if hasattr(kind, "execute") else getattr(kind(), kind.FUNCTION)(*args)
    return getattr(found, "result", found)[0]


def start(rows=1):
    return {"samples": torch.zeros(rows, 4, 16, 16)}


def race(racing, guider, at_once, rows=1, ahead=0):
    from comfy.samplers import sampler_object

    task = racing.custom_task(guider, sampler_object("euler"), torch.tensor(SIGMAS), start(rows), SEEDS, at_once)
    marks = () if task.why_alone else ((1, 0.75, ahead),)
    with torch.inference_mode():
        return racing.sample(task, marks, lambda moment, live: live[1:], racing.nothing)


def lone(guider, seed, rows=1):
    from comfy.sample import prepare_noise
    from comfy.samplers import sampler_object

    latent = start(rows)["samples"]
    with torch.inference_mode():
        noise = prepare_noise(latent, seed)
        return guider.sample(noise, latent, sampler_object("euler"), torch.tensor(SIGMAS), seed=seed)


def holds(racing, guider, together):
    """Three of four, or each by itself: within a thousandth, and to the bit where a lone run's batches are computed."""
    alone = lone(guider, SEEDS[-1])
    out = race(racing, guider, 0)
    assert bool(out.alone) != together, out.alone
    assert out.live == ((1, 2, 3) if together else (0, 1, 2, 3))
    far = float((out.latents[3:] - alone).abs().max())
    assert far <= (1e-3 * float(alone.std()) if together else 0.0)
    if together:
        assert torch.equal(race(racing, guider, 1).latents[3:], alone)
        assert torch.equal(race(racing, guider, 1, ahead=1).latents[3:], alone)  # a short run leaves no trace
    return out


@pytest.mark.parametrize("node", NODES)
def test_a_guidance_node_changes_no_winner(racing, words, tiny_model, node):
    module, widgets = NODES[node]
    plain, (yes, no) = tiny_model("sd15", 0), (words("a cat"), words(""))
    guider = racing.guided(made(module, node, plain, *widgets), yes, no)
    out = holds(racing, guider, node in TOGETHER)
    if node not in TOGETHER:
        assert f"{node} was not measured" in out.alone


def test_perp_neg(racing, words, tiny_model):
    model = made("nodes_perpneg", "PerpNeg", tiny_model("sd15", 0), words(""), 1.0)
    assert "PerpNeg" in holds(racing, racing.guided(model, words("a cat"), words("dark")), together=False).alone


@pytest.mark.parametrize(
    ("module", "node", "numbers", "together"),
    [
        ("nodes_perpneg", "PerpNegGuider", (3.0, 1.0), False),
        ("nodes_custom_sampler", "DualCFGGuider", (3.0, 2.0), True),
    ],
)
def test_guiders_with_three_conditions(racing, words, tiny_model, module, node, numbers, together):
    three = (words("a cat"), words("dark"), words(""))
    extra = ("regular",) if node == "DualCFGGuider" else ()
    holds(racing, made(module, node, tiny_model("sd15", 0), *three, *numbers, *extra), together)


def test_a_batch_of_a_seed_stays_together(racing, words, tiny_model):
    """Where rows of one seed act on one another, they are computed together, however few are wanted at once."""
    model = made("nodes_sag", "SelfAttentionGuidance", tiny_model("sd15", 0), 0.5, 2.0)
    guider = racing.guided(model, words("a cat"), words(""))
    out = race(racing, guider, 1, rows=2)
    assert torch.equal(out.latents[6:], lone(guider, SEEDS[-1], rows=2))


def test_what_hangs_elsewhere_is_found(racing, words, tiny_model):
    def somebodys(*args, **named):
        raise AssertionError("only looked at")

    def reason(change):
        model = tiny_model("sd15", 0).clone()
        change(model)
        return racing.custom_task(
            racing.guided(model, words("a"), words("")), None, torch.tensor(SIGMAS), start(), SEEDS
        ).guider

    unmeasured = importlib.import_module("latent_critic.core.hosts.comfyui.coupling_patches").unmeasured
    for change in (
        lambda model: model.set_model_unet_function_wrapper(somebodys),
        lambda model: model.set_model_attn2_replace(somebodys, "middle", 0, 0),
        lambda model: model.add_wrapper("apply_model", somebodys),
        lambda model: model.add_object_patch("diffusion_model.forward", somebodys),
        lambda model: model.model_options.update(denoise_mask_function=somebodys),
    ):
        assert unmeasured(reason(change)) == "test_what_hangs_elsewhere_is_found"
    assert unmeasured(reason(lambda model: None)) == ""


def test_our_own_patches_do_not_count(racing, words, tiny_model):
    probe = importlib.import_module("latent_critic.core.hosts.comfyui.probe")
    counting = importlib.import_module("latent_critic.core.hosts.comfyui.counting")
    unmeasured = importlib.import_module("latent_critic.core.hosts.comfyui.coupling_patches").unmeasured
    model, _ = probe.probe_model(tiny_model("sd15", 0), (400,))
    model, _ = counting.count_calls(model)
    assert model.wrappers
    assert unmeasured(racing.guided(model, words("a"), words(""))) == ""
