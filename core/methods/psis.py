"""psi by name, for a backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from torch import nn

from ..errors import BadInput

if TYPE_CHECKING:
    from ..backbone.contracts import Backbone
    from ..perceptual.contract import Psi

_Place: TypeAlias = "Callable[[nn.Module], nn.Module]"


def make_psi(
    name: str | None,
    backbone: Backbone,
    *,
    ops: Any = nn,
    place: Callable[[nn.Module], nn.Module] | None = None,
) -> Psi | None:
    """A psi; ``None`` for no name.

    Args:
        name: One of :data:`PSIS`.
        backbone: The loaded model, for ``ldm``.
        ops: Layers of a host that casts weights by itself.
        place: Puts a network under a host's memory management.

    Raises:
        BadInput: no such psi.
        UnreadableFile: its weights are not on this machine; the message says where to get them.
    """
    if name is None:
        return None
    if name not in _MAKERS:
        raise BadInput(f"a psi out of {', '.join(PSIS)}", repr(name), "The default is judge.")
    return cast("Psi", _MAKERS[name](backbone, ops, place or (lambda network: network)))


def _judge(backbone: Backbone, ops: Any, place: _Place) -> object:
    from ..nets.judge_file import digest
    from ..perceptual.judge import SHIPPED, JudgeMaps, JudgePsi

    return JudgePsi(place(JudgeMaps.load(ops=ops)), digest(SHIPPED))


def _ldm(backbone: Backbone, ops: Any, place: _Place) -> object:
    from ..perceptual.ldm import LdmPsi

    return LdmPsi(backbone, backbone.embed([""]))


def _latent(backbone: Backbone, ops: Any, place: _Place) -> object:
    from ..perceptual.latent import LatentPsi

    return LatentPsi()


def _lpips(backbone: Backbone, ops: Any, place: _Place) -> object:
    from ..nets.imagenet import load_maps
    from ..perceptual.lpips import LpipsPsi

    network, weights = load_maps("vgg16", None, ops=ops)
    return LpipsPsi(place(network), weights)


def _dists(backbone: Backbone, ops: Any, place: _Place) -> object:
    from ..nets.imagenet import load_maps
    from ..perceptual.dists import DistsPsi

    network, weights = load_maps("vgg16", None, hanning=True, ops=ops)
    return DistsPsi(place(network), weights)


_MAKERS = {"judge": _judge, "ldm": _ldm, "latent": _latent, "lpips": _lpips, "dists": _dists}
#: What psi may be. ``lpips`` and ``dists`` need files that this package does not hold.
PSIS = tuple(_MAKERS)
