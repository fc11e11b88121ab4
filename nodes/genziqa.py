"""GenzIQA Scorer: learned prompts judge inside the loaded model's cross-attention."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.hosts.comfyui.adaptable import AdaptableComfyBackbone
from ..core.methods.genziqa import GenzIQA
from ..core.methods.genziqa_head import GenzHead
from ..core.methods.genziqa_settings import FAST, PUBLISHED, GenzIQAOptions
from ._heads import held_back_words
from ._loaded import RESIZE, for_large_images, large_images_input, loaded_inputs, need_parts
from ._prompt_heads import NO_LORA, head_choices, head_file, head_of, lora_choices
from ._sockets import CATEGORY_SCORERS, ScorerSocket
from ._stamps import stamp

_LEVELS = {"as trained": None, "published (8)": PUBLISHED, "fast (2)": FAST, "fastest (1)": FAST[-1:]}


class GenzIQAScorer(io.ComfyNode):
    """MODEL, CLIP, VAE and a head → scorer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        choices = head_choices()
        return io.Schema(
            node_id="LatentCriticGenzIQA",
            display_name="GenzIQA Scorer",
            category=CATEGORY_SCORERS,
            description="The model that you have already loaded judges the images by how its cross-attention answers "
            "to learned prompts, good photo and bad photo (reimplemented after De, Mitra and Soundararajan 2024, not "
            "by its authors). It needs a head that was trained for this checkpoint: latent-critic train genziqa.",
            inputs=[
                *loaded_inputs(),
                io.Combo.Input(
                    "head",
                    options=choices,
                    default=choices[0],
                    tooltip="The trained head, from the folder models/quality_heads: a .safetensors of latent-critic "
                    "train genziqa, the context file (.pth) of the authors' own training, or the shipped head of the "
                    "embedded model.",
                ),
                io.Combo.Input(
                    "levels",
                    options=list(_LEVELS),
                    default="as trained",
                    tooltip="How many noise levels a score is averaged over. Each level costs two rows of a denoiser "
                    "forward; the head's report says how alike few and many rank.",
                ),
                io.Boolean.Input(
                    "noise_bias",
                    default=True,
                    tooltip="Whether the difference of the two prompts' noise errors counts. Without it forwards end "
                    "at the last cross-attention, and a head that was trained with it only ranks.",
                ),
                io.Combo.Input(
                    "authors_lora",
                    options=lora_choices(),
                    default=NO_LORA,
                    optional=True,
                    tooltip="The LoRA file beside an authors' context file, as diffusers' save_attn_procs writes it.",
                ),
                io.Boolean.Input(
                    "allow_another_model",
                    default=False,
                    optional=True,
                    tooltip="Use a head of another checkpoint of the same family. Its scores then only rank.",
                ),
                large_images_input(),
            ],
            outputs=[
                ScorerSocket.Output("scorer", "scorer", "The scorer, for any scorer input."),
                io.String.Output("report", "report", "What the head was trained on, how well it did, bytes it needs."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, head: str | None = None, authors_lora: str | None = None, **rest: Any) -> str:
        """Changes when the head or the LoRA is written again; a linked choice comes as ``None``."""
        chosen = (head, None if authors_lora == NO_LORA else authors_lora)
        return stamp(*((lambda name=name: None if name is None else head_file(name)) for name in chosen))

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        head: str,
        levels: str,
        noise_bias: bool,
        authors_lora: str = NO_LORA,
        allow_another_model: bool = False,
        large_images: str = RESIZE,
    ) -> io.NodeOutput:
        """Bind the head to the model."""
        need_parts(model, clip, vae)
        backbone = AdaptableComfyBackbone(model, clip, vae)
        found = head_of(backbone, head, authors_lora)
        options = GenzIQAOptions(timesteps=_LEVELS[levels], bias=noise_bias, override=allow_another_model)
        scorer = GenzIQA(backbone, found, options)
        return io.NodeOutput(for_large_images(scorer, large_images), _report(scorer, found))


def _alike(steps: tuple[int, ...], head: GenzHead) -> bool:
    return sorted(steps) == sorted(head.settings.timesteps)


def _report(scorer: GenzIQA, head: GenzHead) -> str:
    meta, held, validation = head.meta, scorer.held_bytes(), head.meta.validation
    lines = [f"Trained on {meta.training_set}, {meta.pictures} pictures; prompts: {' | '.join(head.prompts.texts)}"]
    lines += held_back_words(validation)
    alike = validation.get("srcc_two_levels_with_published")
    if alike is not None:
        lines.append(f"Rank agreement of 2 levels with the 8 published ones: {alike:.3f}")
    unchanged = [f"levels {name}" for name, steps in _LEVELS.items() if steps and _alike(steps, head)]
    if head.settings.bias_weight == 0.0:
        unchanged.append("noise_bias")
    fitted = [name for name, steps in _LEVELS.items() if steps and head.readout(steps)]
    lines.append(f"Gain, offset and spread were fitted at: {', '.join(['as trained', *fitted])}")
    if unchanged:
        lines.append(f"The same as trained, for this head: {', '.join(unchanged)}")
    lines += [f"Note: {warning}" for warning in scorer.warnings]
    lines.append(f"LoRA: {held['lora']} bytes; originals of changed weights, kept while it scores: {held['patched']}")
    return "\n".join(lines)
