"""How a DiffV2IQA head reads a picture. "Published" is what the authors' code does; everything else is ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import BadInput
from ..nets.diff_v2_eyes import JUDGE_FEATURES, JUDGE_MAPS, JUDGE_STRIDE
from ..nets.diff_v2_vit import VitShape
from ..nets.efficientnet_lite import MAP_CHANNELS
from ..nets.views import crops, grid, mirrored
from .native_size import LONGEST_ASPECT, to_native

if TYPE_CHECKING:
    from torch import Tensor

Views = Literal["whole", "crops", "both"]
#: ResNet50's classes.
_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class View:
    """One square of a picture.

    Attributes:
        pixels: [3, side, side] in [0, 1].
        box: (top, left, height, width) that it shows, in pixels of the picture; a short side is mirrored beyond it.
    """

    pixels: Tensor
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class DiffSettings:
    """Part of a head's file.

    Attributes:
        side: Of the squares that are restored and read (published: 224).
        views: ``crops`` at the picture's own scale (published: one at random; here an even grid), the ``whole`` picture
            resized to a square, or ``both``; the score is the views' mean.
        most_crops: Of a picture at most.
        patches: What gives the VCG its maps: ``vit`` (published: ViT-B/8-224), or the ``judge``'s CNN.
        vectors: What gives the VDA its vectors: ``resnet`` (published: ResNet50), or the ``judge``'s CNN.
        blocks: Of the ViT, from 0 (published: 6 to 9).
        vit: Sizes of the ViT; ``None`` with the judge's maps.
    """

    side: int = 224
    views: Views = "whole"
    most_crops: int = 4
    patches: Literal["vit", "judge"] = "judge"
    vectors: Literal["resnet", "judge"] = "judge"
    blocks: tuple[int, ...] = (6, 7, 8, 9)
    vit: VitShape | None = None

    def __post_init__(self) -> None:
        if self.views not in ("whole", "crops", "both") or self.most_crops < 1:
            got = f"{self.views!r}, {self.most_crops}"
            raise BadInput("views whole, crops or both, of one crop or more", got, "The default is whole.")
        if self.patches not in ("vit", "judge") or self.vectors not in ("resnet", "judge"):
            got = f"{self.patches!r}, {self.vectors!r}"
            raise BadInput("patches vit or judge, vectors resnet or judge", got, "The file may be damaged.")
        if (self.vit is None) != (self.patches == "judge"):
            raise BadInput("a ViT's sizes with patches of a ViT, and only then", str(self.vit), "Leave one out.")
        if self.side < self.patch or self.side % self.patch:
            raise BadInput(f"a side divisible by {self.patch}", str(self.side), "Published: 224.")
        if self.vit is not None:
            self._check_vit(self.vit)

    def _check_vit(self, vit: VitShape) -> None:
        if vit.side != self.side:
            raise BadInput(f"a ViT for {self.side} px", str(vit.side), "Its positions are learned for one size.")
        if len(self.blocks) != 4 or list(self.blocks) != sorted(set(self.blocks)) or self.blocks[-1] >= vit.depth:
            raise BadInput(f"four rising blocks out of {vit.depth}", str(self.blocks), "Published: 6 7 8 9 of 12.")

    @property
    def patch(self) -> int:
        """Side in pixels of what becomes one place of the score map."""
        return JUDGE_STRIDE if self.vit is None else self.vit.patch

    @property
    def grid(self) -> int:
        """Places along a side."""
        return self.side // self.patch

    @property
    def maps(self) -> tuple[int, int, int, int]:
        """Channels of the input's four maps."""
        if self.vit is not None:
            return self.vit.width, self.vit.width, self.vit.width, self.vit.width
        first, second, third, fourth = (MAP_CHANNELS[place] for place in JUDGE_MAPS)
        return first, second, third, fourth

    @property
    def features(self) -> int:
        """Length of the vectors."""
        return JUDGE_FEATURES if self.vectors == "judge" else _CLASSES

    def cut(self, image: Tensor) -> list[View]:
        """A picture [3, H, W] → its views.

        Raises:
            BadInput: longer than 16:1.
        """
        height, width = int(image.shape[1]), int(image.shape[2])
        if max(height, width) > LONGEST_ASPECT * min(height, width):
            got = f"{width}×{height} pixels"
            raise BadInput(f"an image of at most {LONGEST_ASPECT:g}:1", got, "Crop it before scoring.")
        found = []
        if self.views != "whole":
            corners = grid(*mirrored(image, self.side).shape[1:], most=self.most_crops, side=self.side)
            cut = crops(image, self.most_crops, self.side)
            square = (float(self.side), float(self.side))
            found += [View(one, (float(t), float(le), *square)) for one, (t, le) in zip(cut, corners, strict=True)]
        if self.views != "crops":
            box = (0.0, 0.0, float(height), float(width))
            found.append(View(to_native(image, (self.side, self.side)), box))
        return found

    def size_policy(self) -> str:
        """In words, for specs and cards."""
        whole = f"the whole image resized (bicubic, antialiased) to {self.side}×{self.side} px, whatever its aspect"
        cut = (
            f"up to {self.most_crops} crops of {self.side} px at the image's own scale on an even grid, short sides "
            "mirrored"
        )
        return {"whole": whole, "crops": cut, "both": f"{cut}, and {whole}"}[self.views]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {**asdict(self), "blocks": list(self.blocks)}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> DiffSettings:
        """The inverse of :meth:`to_dict`; what it does not know is left out."""
        known = {name: told[name] for name in cls.__dataclass_fields__ if name in told}
        vit = known.get("vit")
        return cls(**{**known, "blocks": tuple(known["blocks"]), "vit": None if vit is None else VitShape(**vit)})


#: As the authors' code reads a picture, but for crops on a grid in place of one at random.
PUBLISHED = DiffSettings(224, "crops", 4, "vit", "resnet", (6, 7, 8, 9), VitShape())
