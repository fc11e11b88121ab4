"""A ComfyBackbone over which learnable text vectors and LoRA can be laid."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...backbone.adaptation import CrossLora, SoftPrompts, TextSpace, Where
from ...backbone.contracts import Conditioning
from ...errors import BadInput
from . import context as soft
from . import denoiser, lora
from .backbone import ComfyBackbone
from .taps import need_unet, tapping_of


class AdaptableComfyBackbone(ComfyBackbone):
    """See :class:`~....backbone.adaptation.AdaptableBackbone`; arguments and errors are :class:`ComfyBackbone`'s.

    Raises:
        UnsupportedFamily: also for a transformer, whose text has no attention of its own to lay LoRA on.
    """

    def __init__(self, model: Any, clip: Any = None, vae: Any = None) -> None:
        super().__init__(model, clip, vae)
        network = model.model.diffusion_model
        self._places = need_unet(network, self.family.name, "with a text cross-attention to lay vectors and LoRA over")
        self._names = lora.weight_names(model.model.diffusion_model, self._places)
        self._lora = CrossLora()

    def text_spaces(self) -> Mapping[str, TextSpace]:
        """The text encoders' inputs, by letter."""
        return soft.text_spaces(self._need_clip())

    def suffixes(self, words: Sequence[str], context: int) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Token ids of each text after ``context`` vectors, for each encoder."""
        return soft.suffixes(self._need_clip(), words, context)

    def start_token(self, encoder: str) -> int:
        """The token that every text begins with."""
        return soft.start_tokens(self._need_clip())[encoder]

    def token_vectors(self, ids: Sequence[int], encoder: str) -> Tensor:
        """The encoder's own vectors of these tokens [n, width], float32 on the CPU."""
        return soft.token_vectors(self._need_clip(), ids, encoder)

    def token_ids(self, vectors: Tensor, encoder: str) -> list[int | None]:
        """The token whose vector each row [n, width] is; ``None`` for one of no token."""
        return soft.token_ids(self._need_clip(), vectors, encoder)

    def embed_soft(self, prompts: SoftPrompts) -> Conditioning:
        """Through the user's own text encoder, with its own masks and layer."""
        return soft.embed_soft(self._need_clip(), prompts)

    def cross_shapes(self) -> Mapping[Where, tuple[int, int]]:
        """(out, in) of every matrix of the text cross-attention."""
        return lora.matrix_shapes(self._model.model, self._names)

    def adapted(self, change: CrossLora) -> AdaptableComfyBackbone:
        """The same MODEL with LoRA over it, on a clone; ComfyUI takes it off when it loads the user's MODEL again."""
        change.check(self.cross_shapes())
        other = copy.copy(self)
        other._lora, other._patcher = change, denoiser.own_clone(self._model)
        if change.layers:
            lora.add(other._patcher, change, self._names)
        other._tapping = tapping_of(self._places, self._family.latent_channels)
        other._tapping.install(other._patcher)
        return other

    def held_bytes(self) -> Mapping[str, int]:
        """Bytes of the LoRA matrices, and of the originals that ComfyUI keeps of the weights they change.

        ``backup`` is what it keeps now; ``patched`` what it keeps while the changed weights are loaded.
        """
        patched = [self._names[where] for where in self._lora.layers]
        weights = [self._model.model.get_parameter(name) for name in patched]
        return {
            "lora": self._lora.bytes,
            "backup": lora.backup_bytes(self._patcher, patched),
            "patched": sum(weight.numel() * weight.element_size() for weight in weights),
        }

    def _need_clip(self) -> Any:
        if self._clip is None:
            raise BadInput("a CLIP", "none", "Connect the checkpoint's CLIP output.")
        return self._clip
