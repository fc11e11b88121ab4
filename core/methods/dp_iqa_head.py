"""A DP-IQA head: two adapters, the quality feature decoder, and how an image is read."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..backbone.residuals import down_levels, level_ends
from ..backbone.schedule import sigma_of_timestep
from ..errors import BadInput, MismatchedBackbone
from ..heads.head import HeadMeta
from ..heads.layout import Layout
from ..nets.dp_iqa_adapters import ImageAdapter, TextAdapter
from ..nets.dp_iqa_decoder import DecoderShape, QualityDecoder
from .dp_iqa_settings import DpSettings

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Family
    from ..backbone.residuals import ResidualBackbone

_log = logging.getLogger(__name__)
REDUCER = "full"
PROMPT = "1485 sentences: quality × scene × distortion"


@dataclass(frozen=True, slots=True)
class DpShape:
    """Sizes of the three networks.

    Attributes:
        decoder: Of the decoder.
        token_width: Of a token of the text sequence.
        text_hidden: Of the text adapter's MLP (published: ``token_width``); 0 for no text adapter.
        down: Channels of the down levels, finest first.
        image_width: Channels inside the image adapter; ``None`` for the levels' own (published), 0 for no adapter.
        image_blocks: Its residual blocks a level.
        factor: Pixels per latent pixel.
    """

    decoder: DecoderShape
    token_width: int
    text_hidden: int
    down: tuple[int, ...]
    image_width: int | None = None
    image_blocks: int = 2
    factor: int = 8

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {**asdict(self), "decoder": self.decoder.to_dict(), "down": list(self.down)}

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> DpShape:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**told, "decoder": DecoderShape.from_dict(told["decoder"]), "down": tuple(told["down"])})


class DpNets(nn.Module):
    """The networks of a head. ``text_adapter`` or ``img_adapter`` may be absent: then nothing is adapted."""

    def __init__(self, shape: DpShape, ops: Any = nn) -> None:
        super().__init__()
        self.shape = shape
        self.text_adapter = TextAdapter(shape.token_width, shape.text_hidden, ops) if shape.text_hidden else None
        self.img_adapter = (
            None
            if shape.image_width == 0
            else ImageAdapter(shape.down, shape.factor, shape.image_width, shape.image_blocks, ops)
        )
        self.QFD = QualityDecoder(shape.decoder, ops)


@dataclass(frozen=True, slots=True)
class DpHead:
    """All that frozen training changes, and what is known of it.

    Attributes:
        meta: As of every head; its kind is ``maps``, its ``settings`` hold :attr:`settings` as plain types.
        nets: The networks, float32 on the CPU.
        settings: How an image is read.
        taps: The up blocks' outputs that are read, in forward order.
        academic: Whether it came out of the authors' files, which are for academic use only.
    """

    meta: HeadMeta
    nets: DpNets
    settings: DpSettings
    taps: tuple[str, ...]
    academic: bool = False
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        """Which taps it reads, in the words of the other heads."""
        return Layout.of((tap, 0, REDUCER, "whole", 1) for tap in self.taps)

    def digest(self) -> str:
        """16 hex digits that tell these weights from others."""
        found = hashlib.sha256()
        for name, value in sorted(self.nets.state_dict().items()):
            found.update(name.encode())
            found.update(_raw(value))
        return found.hexdigest()[:16]

    def check(self, backbone: ResidualBackbone) -> None:
        """Whether the networks' sizes are this model's.

        Raises:
            MismatchedBackbone: names the first size that differs.
            BadInput: a side that this family's latents cannot have.
        """
        self.settings.check(backbone.family)
        shape, family = self.nets.shape, backbone.family
        ends = {tap.name: tap.channels for tap in level_ends(family.taps)}
        expected = (
            ("taps", tuple(ends), self.taps),
            ("channels of the up levels", tuple(ends.values()), shape.decoder.channels),
            ("channels of the down levels", tuple(wide for wide, _ in down_levels(family.taps)), shape.down),
            ("pixels per latent pixel", family.latent_stride, shape.factor),
        )
        for what, theirs, ours in expected:
            if theirs != ours:
                remedy = "Use a head that was trained for this model."
                raise MismatchedBackbone(f"a head whose {what} are {theirs}", f"{ours}", remedy)


def _raw(values: Tensor) -> bytes:
    return values.detach().float().cpu().contiguous().numpy().tobytes()


def fitting_shape(
    family: Family,
    token_width: int,
    *,
    width: int = 512,
    kernel: int = 3,
    squeeze: int = 16,
    thin: tuple[int, ...] = (128, 32, 8),
    cells: int | None = None,
    hidden: int = 512,
    side: int | None = None,
    text_hidden: int | None = None,
    image_width: int | None = None,
    image_blocks: int = 2,
) -> DpShape:
    """Sizes for a model's taps; what is left out is as published.

    Args:
        family: With the model's taps.
        token_width: Of its cross-attention.
        width, kernel, squeeze, thin, hidden: See :class:`~..nets.dp_iqa_decoder.DecoderShape`.
        cells: Side of what is flattened; the grid's own when left out.
        side: Pixels of a square that is read; the grid is its finest map.
        text_hidden, image_width, image_blocks: See :class:`DpShape`.

    Raises:
        BadInput: sizes that do not go together.
    """
    grid = (side or family.native_size) // family.latent_stride
    channels = tuple(tap.channels for tap in level_ends(family.taps))
    decoder = DecoderShape(
        channels, width, kernel, squeeze, thin=thin, grid=grid, cells=cells or grid, hidden=hidden
    )  # fmt: skip
    down = tuple(wide for wide, _ in down_levels(family.taps))
    text = token_width if text_hidden is None else text_hidden
    return DpShape(decoder, token_width, text, down, image_width, image_blocks, family.latent_stride)


def untrained(backbone: ResidualBackbone, shape: DpShape, settings: DpSettings, seed: int = 0) -> DpHead:
    """A head as training begins with it. Its scores are uncalibrated and mean nothing yet.

    Raises:
        BadInput: a side that this family's latents cannot have.
        MismatchedBackbone: sizes that are not this model's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nets = DpNets(shape).eval()
    taps = tuple(tap.name for tap in level_ends(backbone.family.taps))
    head = DpHead(base_meta(backbone, settings), nets, settings, taps)
    head.check(backbone)
    return head


def base_meta(backbone: ResidualBackbone, settings: DpSettings) -> HeadMeta:
    """What is known of a head before it is trained on anything."""
    family = backbone.family
    return HeadMeta(
        method="dp_iqa",
        kind="maps",
        family=family.name,
        fingerprint=backbone.fingerprint.to_text(),
        sigmas=(sigma_of_timestep(settings.timestep, family.prediction),),
        prompt=PROMPT,
        size_policy=settings.size_policy(family),
        training_set="none",
        pictures=0,
        settings=settings.to_dict(),
        identity=dict(backbone.identity),
    )


def grown(head: DpHead, **changes: Any) -> DpHead:
    """The same head with another shape of its adapters; what both have keeps its weights, new parts begin anew.

    Raises:
        BadInput: a change of the decoder, whose weights would be lost.
    """
    shape = replace(head.nets.shape, **changes)
    if shape.decoder != head.nets.shape.decoder:
        raise BadInput("the decoder's own shape", "another one", "Train without a head to begin from.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nets = DpNets(shape).eval()
    kept = {name: value for name, value in head.nets.state_dict().items() if name in nets.state_dict()}
    same = {name: value for name, value in kept.items() if value.shape == nets.state_dict()[name].shape}
    for what, names in (
        ("begin anew", nets.state_dict().keys() - same.keys()),
        ("are left out", head.nets.state_dict().keys() - kept.keys()),
    ):
        if names:
            _log.warning("Of the head to begin from %s: %s", what, ", ".join(sorted(names)))
    nets.load_state_dict({**nets.state_dict(), **same})
    return replace(head, nets=nets)
