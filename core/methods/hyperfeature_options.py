"""What a user may set on hyperfeatures, checked once. The paper leaves all of it open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ..backbone.schedule import sigma_of_timestep
from ..errors import BadInput
from ..guidance.options import GuidanceOptions
from ..taps.reducers import by_name

if TYPE_CHECKING:
    from ..backbone.contracts import Family, Prediction, Tap

View = Literal["crops", "whole"]
_VIEWS: tuple[View, ...] = ("crops", "whole")


@dataclass(frozen=True, slots=True)
class HyperfeatureOptions:
    """Settings of hyperfeatures.

    Attributes:
        kind: ``guided_path``: read while the path is walked. ``single_level``: the picture is noised to each level by
            itself and read in one forward, which ends at its last tap; nothing is guided.
        guidance: Noise levels, zetas, seed and the like. A single level uses its timesteps and seed only.
        psi: Name of the perceptual term's features, for the record; ``None`` without one.
        prompt: The text that the denoiser is given.
        taps: Names of the feature taps; all of the up blocks' when left out, a transformer's later half.
        reducers: What is kept of a tap's grid, by :func:`~..taps.reducers.by_name`.
        views: ``crops`` (averaged) at native scale, the ``whole`` picture resized, or both.
        most_crops: Crops of a picture at most; each costs as much as the whole.
        side: Side of the crops and root of the whole view's area, in pixels; the family's native size when left out.
        limit: Cells of a norm beyond this multiple of the median are scaled down to it; ``None`` leaves them.
        position: Take away the pattern that a grey picture leaves at each place.
    """

    kind: Literal["guided_path", "single_level"] = "guided_path"
    guidance: GuidanceOptions = field(default_factory=GuidanceOptions)
    psi: str | None = "judge"
    prompt: str = ""
    taps: tuple[str, ...] | None = None
    reducers: tuple[str, ...] = ("mean", "std")
    views: tuple[View, ...] = ("crops", "whole")
    most_crops: int = 4
    side: int | None = None
    limit: float | None = 3.0
    position: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("guided_path", "single_level"):
            raise BadInput("kind 'guided_path' or 'single_level'", repr(self.kind), "The default is guided_path.")
        if not self.views or len(set(self.views)) < len(self.views) or not set(self.views) <= set(_VIEWS):
            raise BadInput("views out of 'crops' and 'whole'", str(self.views), "The default is both.")
        if not self.reducers or len(set(self.reducers)) < len(self.reducers):
            raise BadInput("reducers, each once", str(self.reducers), "The default is mean and std.")
        for name in self.reducers:
            by_name(name)
        if self.most_crops < 1:
            raise BadInput("at least 1 crop", str(self.most_crops), "The default is 4.")
        if self.side is not None and (not 64 <= self.side <= 4096 or self.side % 8):
            raise BadInput(
                "a side from 64 to 4096 pixels, a multiple of 8", str(self.side), "Leave it out for the model's own."
            )
        if self.limit is not None and not self.limit > 1.0:
            raise BadInput("a limit above 1", str(self.limit), "3 leaves ordinary cells alone.")
        if self.kind == "guided_path" and self.guidance.zeta2 > 0.0 and self.psi is None:
            raise BadInput("a psi for the perceptual term", "none", "Name one, or set zeta2 to 0.")

    def sigmas(self, prediction: Prediction) -> tuple[float, ...]:
        """The noise levels, highest first."""
        return tuple(sigma_of_timestep(t, prediction) for t in self.guidance.timesteps)

    def size(self, family: Family) -> int:
        """Side of the crops in pixels."""
        return self.side or family.native_size

    def policy(self, family: Family) -> str:
        """The image-size policy in words."""
        side = self.size(family)
        parts = {
            "crops": f"up to {self.most_crops} native-scale {side}-px crops on an even grid (shorter sides mirrored, "
            "nothing enlarged), their features averaged",
            "whole": f"the whole picture resized to the area of {side}×{side} px",
        }
        return "; ".join(parts[view] for view in self.views)

    def of(self, known: Sequence[Tap]) -> tuple[Tap, ...]:
        """The taps to read, in forward order.

        Raises:
            BadInput: the model lacks one of them, or has none at all.
        """
        features = [tap for tap in known if tap.kind == "feature"]
        asked = _usual(features) if self.taps is None else list(self.taps)
        unknown = [name for name in asked if name not in {tap.name for tap in features}]
        if unknown or not asked:
            names = ", ".join(tap.name for tap in features) or "it has none"
            raise BadInput(f"feature taps of this model ({names})", ", ".join(unknown) or "none", "Leave taps out.")
        return tuple(tap for tap in features if tap.name in asked)

    def to_dict(self) -> dict[str, Any]:
        """All that changes a value, as plain types; a head's file keeps it."""
        told = {**asdict(self), "guidance": self.guidance.to_dict()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}

    @classmethod
    def from_dict(cls, told: dict[str, Any], most_rows: int | None = None) -> HyperfeatureOptions:
        """The inverse of :meth:`to_dict`; ``most_rows`` changes no value.

        Raises:
            BadInput: settings that this version does not know.
        """
        lists = {"taps", "reducers", "views"}
        try:
            guidance = GuidanceOptions(**{**told["guidance"], "timesteps": tuple(told["guidance"]["timesteps"])})
            rest = {
                name: tuple(told[name]) if name in lists and told[name] is not None else told[name] for name in told
            }
            found = cls(**{**rest, "guidance": guidance})
        except (TypeError, KeyError) as error:
            raise BadInput(
                "settings of hyperfeatures", str(error), "Update the package, or fit the head again."
            ) from error
        return found if most_rows is None else replace(found, guidance=replace(guidance, most_rows=most_rows))


def _usual(features: Sequence[Tap]) -> list[str]:
    """The up blocks' taps; a transformer has no way up, and the later half of its blocks stands for it."""
    up = [tap.name for tap in features if tap.name.startswith("up.")]
    return up or [tap.name for tap in features[len(features) // 2 :]]
