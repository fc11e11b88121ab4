"""Text vectors and LoRA over a MODEL: against transformers, against merged weights, and nothing left behind."""

import pytest
import torch
from latent_critic.core.backbone.adaptation import PARTS, CrossLora, SoftPrompts
from latent_critic.core.errors import BadInput, MismatchedBackbone

pytestmark = pytest.mark.host
FAMILIES = ["sd15", "sd20", "sdxl"]
WORDS = ("Good Photo.", "Bad Photo.")


@pytest.fixture
def adaptable(comfyui, tiny_model, tiny_clip, tiny_vae):
    from latent_critic.core.hosts.comfyui.adaptable import AdaptableComfyBackbone

    def make(family="sd15", model=None, clip=None, dtype=torch.float32):
        return AdaptableComfyBackbone(model or tiny_model(family, 0, dtype), clip or tiny_clip(family), tiny_vae(0))

    return make


def vectors(backbone, count, seed=0, scale=0.02):
    generator = torch.Generator().manual_seed(seed)
    spaces = backbone.text_spaces()
    return {name: scale * torch.randn(count, space.width, generator=generator) for name, space in spaces.items()}


def soft(backbone, count=4, words=WORDS, seed=0, masked=False):
    return SoftPrompts(vectors(backbone, count, seed), backbone.suffixes(words, count), tuple(words), masked)


def random_lora(backbone, rank=2, seed=0, scale=0.3):
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for where, (rows, columns) in backbone.cross_shapes().items():
        down = torch.randn(rank, columns, generator=generator) * columns**-0.5
        layers[where] = (down, scale * torch.randn(rows, rank, generator=generator))
    return CrossLora(layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_context_of_the_words_own_vectors_is_the_words(adaptable, family):
    """The host's vectors of "a sharp" in place of the words themselves: bit for bit the same conditions."""
    backbone = adaptable(family)
    text, rest = "a sharp Good Photo.", "Good Photo."
    own = backbone.suffixes([text], 0)
    context = {name: backbone.token_vectors(rows[0][:2], name) for name, rows in own.items()}
    found = backbone.embed_soft(SoftPrompts(context, backbone.suffixes([rest], 2), (rest,)))
    expected = backbone.embed([text])
    assert torch.equal(found.tokens, expected.tokens)
    assert (found.pooled is None) == (expected.pooled is None)
    if found.pooled is not None:
        assert torch.equal(found.pooled, expected.pooled)


@pytest.mark.parametrize(
    ("family", "name", "penultimate"),
    [("sd15", "l", False), ("sd20", "h", True), ("sdxl", "l", True), ("sdxl", "g", True)],
)
@pytest.mark.parametrize("masked", [False, True])
def test_vectors_go_through_as_in_transformers(adaptable, tiny_clip, family, name, penultimate, masked):
    backbone = adaptable(family)
    prompts = soft(backbone, masked=masked)
    found = backbone.embed_soft(prompts).tokens
    encoder = getattr(tiny_clip(family).cond_stage_model, f"clip_{name}")
    expected = in_transformers(
        encoder.transformer, prompts.context[name], prompts.suffix[name], penultimate, family == "sd20", masked
    )
    if family == "sdxl":
        width = backbone.text_spaces()["l"].width
        found = found[..., :width] if name == "l" else found[..., width:]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_padding_mask_changes_the_padding_alone_and_is_switched_back(adaptable, tiny_clip):
    backbone = adaptable("sdxl")
    encoders = [getattr(tiny_clip("sdxl").cond_stage_model, name) for name in ("clip_l", "clip_g")]
    encoders[1].enable_attention_masks = True
    plain, masked = (backbone.embed_soft(soft(backbone, masked=on)).tokens for on in (False, True))
    assert [encoder.enable_attention_masks for encoder in encoders] == [False, True]
    encoders[1].enable_attention_masks = False
    width, end = backbone.text_spaces()["l"].width, 6 + soft(backbone).suffix["l"][0].index(49407)
    assert torch.equal(masked[0, :end, :width], plain[0, :end, :width])
    assert float((masked[0, end:, :width] - plain[0, end:, :width]).abs().amax(-1).min()) > 0.0


def in_transformers(network, context, suffix, penultimate, normed, masked):
    """The same weights in transformers' CLIPTextModel, with our vectors put where its token embeddings come out."""
    from transformers import CLIPTextConfig, CLIPTextModel

    weights = {
        key: value.float() for key, value in network.state_dict().items() if not key.startswith("text_projection")
    }
    layers = 1 + max(int(key.split(".")[3]) for key in weights if ".layers." in key)
    table, inner = (
        weights["text_model.embeddings.token_embedding.weight"],
        weights["text_model.encoder.layers.0.mlp.fc1.weight"],
    )
    gelu = network.text_model.encoder.layers[0].mlp.activation is torch.nn.functional.gelu
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(table),
            hidden_size=table.shape[1],
            intermediate_size=len(inner),
            num_hidden_layers=layers,
            num_attention_heads=network.text_model.encoder.layers[0].self_attn.heads,
            hidden_act="gelu" if gelu else "quick_gelu",
        )
    ).eval()
    own = {key for key in model.state_dict() if "position_ids" not in key}
    short = not any(key.startswith("text_model.") for key in own)
    model.load_state_dict(
        {key.removeprefix("text_model.") if short else key: value for key, value in weights.items()}, strict=False
    )
    ids = torch.tensor([[49406, *[0] * len(context), *row] for row in suffix])
    place = getattr(model, "text_model", model).embeddings.token_embedding
    hook = place.register_forward_hook(
        lambda module, args, out: torch.cat(
            [out[:, :1], context.expand(len(out), -1, -1), out[:, 1 + len(context) :]], 1
        )
    )
    with torch.no_grad():
        mask = torch.tensor([[place <= row.index(49407, 1) for place in range(len(row))] for row in ids.tolist()])
        out = model(ids, attention_mask=mask.long() if masked else None, output_hidden_states=True)
        hook.remove()
        if not penultimate:
            return out.last_hidden_state
        states = out.hidden_states[-2]
        return getattr(model, "text_model", model).final_layer_norm(states) if normed else states


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_is_the_merged_weight_and_leaves_the_model_as_it_was(adaptable, tiny_model, call, weights_of, family):
    from comfy import model_management

    model = tiny_model(family)
    backbone = adaptable(family, model)
    arguments = call(backbone)
    before, plain = weights_of(model), backbone.denoise(*arguments)
    change = random_lora(backbone)
    changed = backbone.adapted(change).denoise(*arguments)
    assert not torch.allclose(changed, plain, atol=1e-3)

    merged = tiny_model(family)
    state = dict(merged.model.named_parameters())
    with torch.no_grad():
        for where, (down, up) in change.layers.items():
            state[backbone._names[where]] += up @ down
    torch.testing.assert_close(changed, adaptable(family, merged).denoise(*arguments), rtol=1e-4, atol=1e-4)

    assert torch.equal(backbone.denoise(*arguments), plain)
    model_management.load_models_gpu([model])
    after = weights_of(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not model.patches


def test_every_matrix_of_the_text_attention_is_reached(adaptable):
    backbone = adaptable("sdxl")
    taps = [tap.name for tap in backbone.family.taps if tap.kind == "attention"]
    assert set(backbone.cross_shapes()) == {(tap, part) for tap in taps for part in PARTS}


def test_another_lora_composes(adaptable, tiny_model, call):
    from comfy.weight_adapter import LoRAAdapter

    model = tiny_model("sd15")
    first = random_lora(adaptable("sd15", model), seed=1)
    second = random_lora(adaptable("sd15", model), seed=2)
    names = adaptable("sd15", model)._names
    users = model.clone()
    users.add_patches(
        {names[w]: LoRAAdapter(set(), (up, down, None, None, None, None)) for w, (down, up) in first.layers.items()}
    )
    backbone = adaptable("sd15", users)
    arguments = call(backbone)
    both = backbone.adapted(second).denoise(*arguments)
    joined = CrossLora(
        {
            w: (
                torch.cat([first.layers[w][0], second.layers[w][0]]),
                torch.cat([first.layers[w][1], second.layers[w][1]], 1),
            )
            for w in first.layers
        }
    )
    torch.testing.assert_close(both, adaptable("sd15", model).adapted(joined).denoise(*arguments), rtol=1e-4, atol=1e-4)


def test_bytes_are_counted(adaptable, call):
    backbone = adaptable("sd15")
    change = random_lora(backbone, rank=3)
    adapted = backbone.adapted(change)
    originals = sum(4 * rows * columns for rows, columns in backbone.cross_shapes().values())
    assert adapted.held_bytes() == {"lora": change.bytes, "backup": 0, "patched": originals}
    assert change.bytes == sum(4 * 3 * (rows + columns) for rows, columns in backbone.cross_shapes().values())
    adapted.denoise(*call(adapted))
    assert adapted.held_bytes() == {"lora": change.bytes, "backup": originals, "patched": originals}


def test_fingerprint_and_identity_stay_the_models(adaptable, call):
    backbone = adaptable("sd15")
    before = backbone.fingerprint, dict(backbone.identity)
    adapted = backbone.adapted(random_lora(backbone))
    adapted.denoise(*call(adapted))
    assert (adapted.fingerprint, dict(adapted.identity)) == before
    again = adaptable("sd15", backbone._model)
    assert (again.fingerprint, dict(again.identity)) == before


def test_wrong_lora_is_refused(adaptable):
    backbone, other = adaptable("sd15"), adaptable("sd20")
    with pytest.raises(MismatchedBackbone, match="Expected LoRA for a matrix"):
        backbone.adapted(random_lora(other))
    good = dict(random_lora(backbone).layers)
    with pytest.raises(MismatchedBackbone, match=r"up\.7\.7 q"):
        backbone.adapted(CrossLora({("up.7.7", "q"): next(iter(good.values()))}))
    where = next(iter(good))
    down, up = good[where]
    with pytest.raises(BadInput, match="share one rank"):
        backbone.adapted(CrossLora({**good, where: (down[:1], up[:, :1])}))
    with pytest.raises(BadInput, match="LoRA matrices"):
        backbone.adapted(CrossLora({where: (down, up[:, :1])}))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("",), "a word or more"),
        (("  \n",), "a word or more"),
        (("photo " * 72,), "at most 71 tokens"),
        ((3,), "a word"),
    ],
)
def test_bad_words(adaptable, words, problem):
    with pytest.raises(BadInput, match=problem):
        adaptable("sd15").suffixes(words, 4)


@pytest.mark.parametrize("text", ["хорошее фото", "良い写真。", "صورة جيدة", "🙂", "(heavy:1.5) photo"])
def test_other_scripts_are_words(adaptable, text):
    backbone = adaptable("sd15")
    conditioning = backbone.embed_soft(soft(backbone, words=(text, "Bad Photo.")))
    assert conditioning.tokens.isfinite().all()
    assert not torch.equal(conditioning.tokens[0], conditioning.tokens[1])


def test_the_longest_text_that_fits(adaptable):
    backbone = adaptable("sd15")
    prompts = soft(backbone, words=("photo " * 71, "bad"))
    assert backbone.embed_soft(prompts).tokens.shape[:2] == (2, 77)


def test_a_context_of_another_family_is_refused(adaptable):
    backbone, other = adaptable("sd15"), adaptable("sd20")
    with pytest.raises(MismatchedBackbone, match="text encoders l"):
        backbone.embed_soft(soft(other))
    prompts = soft(backbone)
    narrow = SoftPrompts({"l": prompts.context["l"][:, :8]}, prompts.suffix, WORDS)
    with pytest.raises(MismatchedBackbone, match=r"\[N, 64\]"):
        backbone.embed_soft(narrow)
    short = SoftPrompts({"l": prompts.context["l"][:2]}, prompts.suffix, WORDS)
    with pytest.raises(MismatchedBackbone, match="77 tokens"):
        backbone.embed_soft(short)


def test_a_clip_is_needed(comfyui, tiny_model):
    from latent_critic.core.hosts.comfyui.adaptable import AdaptableComfyBackbone

    with pytest.raises(BadInput, match="a CLIP"):
        AdaptableComfyBackbone(tiny_model("sd15")).text_spaces()
