"""The authors' checkpoint layout in and out: their context tensors, and LoRA as diffusers' save_attn_procs writes it.

A context file holds ``ctx`` [N, width], ``token_prefix`` [2, 1, width] and ``token_suffix`` [2, 76 - N, width]: vectors
of the text encoder's own table, which are turned back into tokens here, so that a file made on another text encoder is
refused. LoRA keys look like ``down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_q_lora.down.weight``.
Their code has no readout: raw score = MOS, with ln(queries) / T still in it, at 512×512 after CLIP's normalisation, and
it masks the text encoder's padding.
"""

from __future__ import annotations

import logging
import math
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..backbone.adaptation import CrossLora, Part, SoftPrompts, Where
from ..errors import BadInput, MismatchedBackbone, UnreadableFile
from ..files import whole_file
from .genziqa_head import GenzHead, base_meta
from .genziqa_settings import WORDS, GenzSettings
from .native_size import native_shape
from .prompt_reader import attention_taps
from .prompt_scores import TEMPERATURE

if TYPE_CHECKING:
    from ..backbone.adaptation import AdaptableBackbone
    from ..backbone.contracts import Family, Tap

_log = logging.getLogger(__name__)
_KEYS = ("ctx", "token_prefix", "token_suffix")
_LORA = re.compile(
    r"^(?:unet\.)?(?P<block>down_blocks\.\d+|up_blocks\.\d+|mid_block)\.attentions\.(?P<place>\d+)\."
    r"transformer_blocks\.(?P<index>\d+)\.(?P<attention>attn\d)\.processor\.to_(?P<part>q|k|v|out)_lora\."
    r"(?P<side>down|up)\.weight$"
)
_REMEDY = "Name the files that the authors' training wrote for this model."
SIDE = 512


def import_authors(
    backbone: AdaptableBackbone,
    context_file: str | Path,
    lora_file: str | Path | None = None,
    *,
    training_set: str = "unknown",
    calibrated_on: str | None = None,
    side: int = SIDE,
    temperature: float = TEMPERATURE,
) -> GenzHead:
    """A head out of the authors' files; pickles are read with ``weights_only=True``.

    Args:
        backbone: The model that they were trained on, with one text encoder (theirs is SD 2.1-base).
        context_file: With ctx, token_prefix and token_suffix.
        lora_file: With LoRA of the text cross-attention.
        training_set: What they were trained on.
        calibrated_on: Whose ratings their raw score is on, 0 to 100; left out, it only ranks.
        side: Pixels of the squares that they were trained on.
        temperature: Of the soft maximum over queries that they were trained with.

    Raises:
        UnreadableFile: missing, damaged, or a pickle that holds more than tensors.
        BadInput: tensors are missing, not finite, or of a wrong shape or rank, or LoRA of other layers than attn2.
        MismatchedBackbone: vectors or matrices that are not this model's.
    """
    family = backbone.family
    taps = attention_taps(family.taps, None)
    prompts = _prompts(backbone, _finite(_read(context_file), context_file))
    layers = {} if lora_file is None else _layers(_finite(_read(lora_file), lora_file), taps)
    lora = CrossLora(layers)
    lora.check(backbone.cross_shapes())
    missing = [] if lora_file is None else sorted(set(backbone.cross_shapes()) - set(layers))
    if missing:
        names = ", ".join(" ".join(where) for where in missing)
        _log.warning("The LoRA file holds nothing for %d of the model's matrices: %s.", len(missing), names)
    settings = GenzSettings(
        value_range="clip", square=True, side=side, bias_weight=plain_norm(family, side), temperature=temperature
    )
    settings = replace(settings, offset=_offset(taps, _latent_side(family, side), temperature))
    meta = replace(
        base_meta(backbone, settings, prompts.texts),
        training_set=training_set,
        calibrated_on=calibrated_on,
        scale=None if calibrated_on is None else (0.0, 100.0),
        centre=50.0,
        spread=15.0,
    )
    return GenzHead(meta, prompts, lora, settings, tuple(tap.name for tap in taps))


def export_authors(
    head: GenzHead, backbone: AdaptableBackbone, context_file: str | Path, lora_file: str | Path
) -> None:
    """Write a head in the authors' layout: a pickle of tensors, and safetensors. Gain and offset have no place there.

    Raises:
        BadInput: a head for several text encoders, which that layout cannot hold, or with a LoRA alpha.
    """
    if len(head.prompts.context) != 1 or head.lora.alpha is not None:
        raise BadInput("a head for one text encoder, without alpha", str(sorted(head.prompts.context)), _REMEDY)
    if head.settings.gain != 1.0:
        _log.warning("The authors' layout has no gain (%g) and offset: its raw scores are not MOS.", head.settings.gain)
    side = head.settings.side or backbone.family.native_size
    if head.settings.bias_weight != plain_norm(backbone.family, side):
        _log.warning("The authors' layout has no weight (%g) of the bias either.", head.settings.bias_weight)
    if not head.prompts.padding_mask:
        _log.warning("The authors' code masks the text encoder's padding, which this head was trained without.")
    ((name, context),) = head.prompts.context.items()
    start = backbone.start_token(name)
    told = {
        "ctx": context.detach().float().cpu().clone(),
        "token_prefix": backbone.token_vectors([start, start], name)[:, None].clone(),
        "token_suffix": torch.stack([backbone.token_vectors(row, name) for row in head.prompts.suffix[name]]),
    }
    with whole_file(Path(context_file)) as temporary:
        torch.save(told, temporary)
    written: dict[str, Tensor] = {}
    for (tap, part), (down, up) in head.lora.layers.items():
        stem = f"{_diffusers_name(tap)}.attn2.processor.to_{part}_lora"
        written |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
    with whole_file(Path(lora_file)) as temporary:
        save_file({key: value.detach().float().cpu().contiguous().clone() for key, value in written.items()}, temporary)


def _finite(told: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    broken = [name for name, value in told.items() if not bool(value.isfinite().all())]
    if broken:
        raise BadInput(f"finite values in {path}", f"NaN or infinite ones in {', '.join(broken)[:120]}", _REMEDY)
    return told


def _read(path: str | Path) -> dict[str, Tensor]:
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        told = torch.load(path, map_location="cpu", weights_only=True)
        told = told.get("state_dict", told)
        return {str(key): value for key, value in told.items() if isinstance(value, Tensor)}
    except (
        OSError,
        SafetensorError,
        RuntimeError,
        ValueError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        got = "no such file" if not path.exists() else f"{type(error).__name__}: {str(error)[:200]}"
        raise UnreadableFile(f"tensors in {path}", got, _REMEDY) from error


def _prompts(backbone: AdaptableBackbone, told: Mapping[str, Tensor]) -> SoftPrompts:
    found = {key: value for name, value in told.items() for key in _KEYS if name.rsplit(".", 1)[-1] == key}
    spaces = backbone.text_spaces()
    if set(found) != set(_KEYS) or len(spaces) != 1:
        got = f"{', '.join(sorted(told))[:120] or 'none'} for {len(spaces)} text encoders"
        raise BadInput("ctx, token_prefix and token_suffix for one text encoder", got, _REMEDY)
    ((name, space),) = spaces.items()
    context, prefix, suffix = (found[key].float() for key in _KEYS)
    expected = {
        "token_prefix": [2, 1, space.width],
        "token_suffix": [2, space.length - 1 - len(context), space.width],
    }
    if context.ndim != 2 or context.shape[1] != space.width:
        raise MismatchedBackbone(f"ctx [N, {space.width}]", f"{list(context.shape)}", _REMEDY)
    for key, value in (("token_prefix", prefix), ("token_suffix", suffix)):
        if list(value.shape) != expected[key]:
            raise MismatchedBackbone(f"{key} {expected[key]} beside ctx", f"{list(value.shape)}", _REMEDY)
    starts = _tokens(backbone, prefix[:, 0], name, "token_prefix")
    if set(starts) != {backbone.start_token(name)}:
        raise MismatchedBackbone("the start token in token_prefix", f"tokens {sorted(set(starts))}", _REMEDY)
    rows = tuple(tuple(_tokens(backbone, row, name, "token_suffix")) for row in suffix)
    usual = backbone.suffixes(WORDS, len(context))[name]
    texts = WORDS if rows == usual else tuple(f"tokens {' '.join(map(str, dict.fromkeys(row)))}" for row in rows)
    return SoftPrompts({name: context}, {name: rows}, texts, padding_mask=True)


def _tokens(backbone: AdaptableBackbone, vectors: Tensor, name: str, key: str) -> list[int]:
    found = backbone.token_ids(vectors, name)
    lost = [place for place, token in enumerate(found) if token is None]
    if lost:
        raise MismatchedBackbone(
            f"vectors of the loaded text encoder's tokens in {key}", f"{len(lost)} of {len(found)} others", _REMEDY
        )
    return [token for token in found if token is not None]


def _layers(told: Mapping[str, Tensor], taps: Sequence[Tap]) -> dict[Where, tuple[Tensor, Tensor]]:
    known = {tap.name for tap in taps}
    halves: dict[Where, dict[str, Tensor]] = {}
    for key, value in told.items():
        match = _LORA.match(key)
        if match is None or match["attention"] != "attn2":
            raise BadInput("LoRA of attn2 as save_attn_procs writes it", key, _REMEDY)
        tap = _tap_name(match, known)
        halves.setdefault((tap, cast("Part", match["part"])), {})[match["side"]] = value.float()
    broken = [where for where, pair in halves.items() if set(pair) != {"down", "up"}]
    if broken or not halves:
        got = f"half of {broken[0][0]} {broken[0][1]}" if broken else "no matrices"
        raise BadInput("LoRA with both its halves", got, _REMEDY)
    return {where: (pair["down"], pair["up"]) for where, pair in halves.items()}


def _tap_name(match: re.Match[str], known: set[str]) -> str:
    block = match["block"].replace("_blocks", "").replace("_block", "")
    name = f"{block}.{match['place']}"
    return name if name in known and match["index"] == "0" else f"{name}.{match['index']}"


def _diffusers_name(tap: str) -> str:
    block, *numbers = tap.split(".")
    if block == "mid":
        place, *index = numbers
        base = f"mid_block.attentions.{place}"
    else:
        level, place, *index = numbers
        base = f"{block}_blocks.{level}.attentions.{place}"
    return f"{base}.transformer_blocks.{index[0] if index else 0}"


def plain_norm(family: Family, side: int) -> float:
    """The bias weight, in units of root mean square, that makes the published plain norm at this side in pixels."""
    return math.sqrt(family.latent_channels) * _latent_side(family, side)


def _latent_side(family: Family, side: int) -> int:
    return native_shape(1, 1, family, side)[0] // family.latent_stride


def _offset(taps: Sequence[Tap], side: int, temperature: float) -> float:
    """What summing over queries adds to the published raw score at this latent side."""
    return sum(math.log((-(-side // tap.stride)) ** 2) for tap in taps) / len(taps) / temperature
