"""What DP-IQA asks of a host beside :class:`~.contracts.Backbone`: residuals in the down blocks, features of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ..errors import BadInput
from .contracts import Backbone, Conditioning, Tap

if TYPE_CHECKING:
    from torch import Tensor

    from ..taps.recorder import Recorder


class ResidualBackbone(Backbone, Protocol):
    """A backbone whose down blocks take residuals, as a T2I-adapter gives them."""

    def features_beside(
        self,
        z_t: Tensor,
        sigma: Tensor,
        conditioning: Conditioning,
        recorder: Recorder,
        residuals: Sequence[Tensor] | None,
    ) -> None:
        """As ``features``, with residuals [N, C, h, w] of every down level (:func:`down_levels`) added.

        Each is added to the level's last output before it is made smaller; the skip connection carries it too.
        """
        ...

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Texts → CLIP's projected text features, not normalised [N, W], float32 on the CPU.

        Raises:
            MismatchedBackbone: the text encoder came without its projection, as in a Stable Diffusion checkpoint.
        """
        ...


def level_ends(taps: Sequence[Tap]) -> tuple[Tap, ...]:
    """The last feature tap of every up level: its output after it was made larger.

    Raises:
        BadInput: a model without up blocks.
    """
    ups = _ups(taps)
    return tuple(tap for tap, after in zip(ups, [*ups[1:], None], strict=True) if after is None or _ends(ups, tap))


def down_levels(taps: Sequence[Tap]) -> tuple[tuple[int, int], ...]:
    """(channels, stride) of every down level, finest first, by the symmetry of a U-Net.

    Raises:
        BadInput: a model without up blocks.
    """
    ups = _ups(taps)
    stride = next((tap.stride for tap in taps if tap.name == "mid"), ups[0].stride)
    levels, begins = [], True
    for tap in ups:
        if begins:
            levels.append((tap.channels, stride))
        begins, stride = tap in level_ends(taps), tap.stride
    return tuple(reversed(levels))


def _ups(taps: Sequence[Tap]) -> list[Tap]:
    ups = [tap for tap in taps if tap.kind == "feature" and tap.name.startswith("up.")]
    if not ups:
        raise BadInput("a U-Net with up blocks", "none", "Use a model of SD 1.x, SD 2.x or SDXL.")
    return ups


def _ends(ups: Sequence[Tap], tap: Tap) -> bool:
    """Whether this tap is finer than the one before it: an upsampler closes its level."""
    place = ups.index(tap)
    return place > 0 and tap.stride < ups[place - 1].stride
