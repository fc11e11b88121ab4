"""A random teacher of the DP-IQA authors' layout at its full size, and the node's graph for it; see full_size.py."""

from dataclasses import replace

import torch

NAME = "theirs.pth"


def random(shape, dtype, draw):
    """A tensor that keeps activations of moderate size; vectors are biases."""
    made = torch.empty(shape, dtype=dtype)
    return made.normal_(0, 0.7 / made[0].numel() ** 0.5, generator=draw) if len(shape) > 1 else made.fill_(0)


def scales(name, value):
    """Norms' weights are ones."""
    return value.fill_(1) if value.ndim == 1 and name.endswith("weight") else value


def write_teacher(path, pack):
    """Every key of the layout: the fine-tuned U-Net in bf16, VAE, adapters and decoder in fp32. Returns the values."""
    import comfy.supported_models
    import comfy.utils
    import diffusers

    own, authors = pack("core.hosts.comfyui.own_unet"), pack("core.methods.dp_iqa_authors")
    draw, state = torch.Generator().manual_seed(0), {}
    config = comfy.supported_models.SD15(own.SD15.unet_config())
    config.unet_config["num_heads"] = own.SD15.heads
    config.set_inference_dtype(torch.bfloat16, None)
    unet = config.get_model({}, "", device=torch.device("meta")).diffusion_model.state_dict()
    for theirs, ours in comfy.utils.unet_to_diffusers(config.unet_config).items():
        if ours in unet:
            state[f"unet.{theirs}"] = scales(theirs, random(unet[ours].shape, torch.bfloat16, draw))
    with torch.device("meta"):
        vae = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        nets = pack("core.methods.dp_iqa_head").DpNets(authors.PUBLISHED_SHAPE)
    for name, value in vae.state_dict().items():
        state[f"vae.{name}"] = scales(name, random(value.shape, torch.float32, draw))
    for name, value in nets.state_dict().items():
        if not name.startswith(("QFD.centre", "QFD.scale")):  # ours, in no file of theirs
            state["gamma" if name == "text_adapter.gamma" else name] = random(value.shape, torch.float32, draw)
    torch.save(state, path)
    return sum(value.numel() for value in state.values())


def write_student(path, pack):
    """The student as published: EfficientNet-B7's features and a small decoder, random. Returns the values."""
    torch.manual_seed(0)
    network = pack("core.nets.dp_iqa_student").StudentNetwork()
    torch.save(network.state_dict(), path)
    return sum(value.numel() for value in network.parameters())


def small_clip():
    """A CLIP of SD 1.5's width with one layer and a projection, random."""
    import comfy.sd
    import comfy.sd1_clip
    import comfy.supported_models_base

    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    layers = {"num_hidden_layers": 1, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 768}
    clip = comfy.sd.CLIP(target, model_options={"clip_l_model_config": layers, "dtype": torch.float32})
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in clip.cond_stage_model.named_parameters():
            value.copy_(scales(name, random(value.shape, torch.float32, draw)))
    return clip


def watch_parts(pack, side, seen):
    """Have the node's loading tell ``seen(model, vae)`` what it made, and read images at ``side``."""
    node = pack("nodes._dp_iqa")
    model_of, vae_of, head_of = node.own_model, node.own_vae, node.academic_head
    made = []

    def own_model(weights):
        made.append(model_of(weights))
        return made[0]

    def own_vae(weights):
        found = vae_of(weights)
        seen(made[0], found)
        return found

    def academic_head(backbone, teacher):
        head = head_of(backbone, teacher)
        return replace(head, settings=replace(head.settings, side=side))

    node.own_model, node.own_vae, node.academic_head = own_model, own_vae, academic_head


def prompt(with_clip):
    """The file, and for a teacher a CLIP → DP-IQA Scorer → Score Images."""
    scorer = {"file": NAME, "allow_another_model": False, **({"clip": ["1", 0]} if with_clip else {})}
    return {
        **({"1": {"class_type": "Clip", "inputs": {}}} if with_clip else {}),
        "3": {"class_type": "Image", "inputs": {}},
        "4": {"class_type": "LatentCriticDPIQA", "inputs": scorer},
        "5": {"class_type": "LatentCriticScoreImages", "inputs": {"images": ["3", 0], "scorer": ["4", 0]}},
    }
