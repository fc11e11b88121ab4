"""DP-IQA's text sequence: 1485 sentences, one vector each, computed once for a text encoder."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import UnwritableFile
from ..files import user_cache, whole_file
from .dp_iqa_words import sentences

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.residuals import ResidualBackbone
    from .contract import Watch
    from .dp_iqa_settings import Text

_log = logging.getLogger(__name__)
_AT_ONCE = 33


@dataclass(frozen=True, slots=True)
class TextSequence:
    """What the cross-attention reads, before the text adapter.

    Attributes:
        tokens: [sentences, W], float32 on the CPU.
        pooled: [P] mean pooled text, where the family takes one.
    """

    tokens: Tensor
    pooled: Tensor | None = None


def text_sequence(
    backbone: ResidualBackbone, text: Text, folder: Path | None = None, watch: Watch | None = None
) -> TextSequence:
    """The sequence of a backbone's text encoder, from the folder where it was kept before.

    Args:
        backbone: Whose text encoder.
        text: How a sentence becomes a vector, see :class:`~.dp_iqa_settings.DpSettings`.
        folder: Where sequences are kept, one file for each text encoder, its patches and ``text``; a damaged file
            counts as absent.
        watch: Called while sentences are embedded; may raise to stop.

    Raises:
        MismatchedBackbone: ``projected`` with a text encoder that has no projection.
    """
    path = None if folder is None else folder / f"{_key(backbone, text)}.safetensors"
    kept = None if path is None else _read(path)
    if kept is not None:
        return kept
    made = _embed(backbone, text, watch)
    if path is not None:
        _keep(path, made)
    return made


def user_folder() -> Path | None:
    """Where sequences are kept for all of a user's scorers; ``None`` for somebody without a home folder."""
    return user_cache("texts")


def _keep(path: Path, made: TextSequence) -> None:
    """A folder that takes no files costs the next scorer time, and this one nothing."""
    tensors = {"tokens": made.tokens} | ({} if made.pooled is None else {"pooled": made.pooled})
    try:
        with whole_file(path) as temporary:
            save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)
    except UnwritableFile as error:
        _log.warning("The sentences of DP-IQA are not kept: %s", error)


def _embed(backbone: ResidualBackbone, text: Text, watch: Watch | None) -> TextSequence:
    listed = sentences()
    tokens, pooled = [], []
    with torch.no_grad():
        for first in range(0, len(listed), _AT_ONCE):
            part = listed[first : first + _AT_ONCE]
            if text == "projected":
                tokens.append(backbone.text_features(part))
            else:
                found = backbone.embed(part)
                ends = [last for _, last in found.text_tokens]
                tokens.append(found.tokens[range(len(part)), ends].float().cpu())
                pooled += [] if found.pooled is None else [found.pooled.float().cpu()]
            if watch is not None:
                watch(first + len(part), len(listed))
    _log.info("Embedded %d sentences for DP-IQA.", len(listed))
    return TextSequence(torch.cat(tokens), torch.cat(pooled).mean(0) if pooled else None)


def _key(backbone: ResidualBackbone, text: Text) -> str:
    """Hash of what decides the vectors: the encoder and its set-up as the host tells them, and the words.

    A host that does not tell its encoder apart counts the whole model for it.
    """
    identity = {name: value for name, value in backbone.identity.items() if name.startswith("clip")}
    encoder = identity or {"model": backbone.fingerprint.to_text()}
    told = [encoder, backbone.family.text_layout, text, sentences()]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


def _read(path: Path) -> TextSequence | None:
    try:
        found = load_file(path)
        return TextSequence(found["tokens"], found.get("pooled"))
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        _log.warning("%s cannot be read and is computed again: %s", path, error)
        return None
