"""What comes into a guided path: checked once, and made into the two terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import BadInput
from ..memory import in_chunks
from .terms import Decoding, Measurement, Perceptual, Term, joined

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Backbone, Conditioning
    from ..perceptual.contract import Psi
    from .calls import Calls
    from .options import GuidanceOptions


def check(
    backbone: Backbone,
    clean: Tensor,
    target: Tensor | None,
    options: GuidanceOptions,
    psi: Psi | None,
    conditioning: Conditioning,
    weight: Tensor | None,
) -> None:
    """Refuse what does not fit together.

    Raises:
        BadInput: shapes that do not fit each other or the model's stride, no psi, or no tiny autoencoder.
    """
    family = backbone.family
    if clean.ndim != 4 or len(clean) < 1 or clean.shape[1] != family.latent_channels:
        raise BadInput(
            f"latents [N, {family.latent_channels}, h, w]", f"shape {list(clean.shape)}", "Encode with this model."
        )
    rows, side = len(clean), family.latent_stride
    if len(conditioning.tokens) != rows:
        raise BadInput(
            f"{rows} conditions, one per latent",
            str(len(conditioning.tokens)),
            "Repeat one: conditioning.rows([0] * N).",
        )
    pixels = [clean.shape[2] * side, clean.shape[3] * side]
    if target is not None and list(target.shape) != [rows, 3, *pixels]:
        raise BadInput(
            f"pictures {[rows, 3, *pixels]} for these latents (sides are multiples of {side})",
            f"shape {list(target.shape)}",
            f"Crop or resize the pictures to multiples of {side} before encoding them.",
        )
    if weight is not None:
        if list(weight.shape) != [rows, 1, *pixels]:
            raise BadInput(f"weights {[rows, 1, *pixels]}", f"shape {list(weight.shape)}", "Resize the mask first.")
        if not bool((weight.isfinite() & (weight >= 0)).all()):
            raise BadInput("finite weights ≥ 0", "others", "Give a mask from 0 (ignored) to 1.")
    if options.zeta2 > 0 and psi is None:
        raise BadInput("a psi for the perceptual term", "none", "Give one, or set zeta2 to 0.")
    if options.decoder == "tiny" and not backbone.has_tiny_decoder:
        raise BadInput("a tiny autoencoder", "a backbone without one", "Give the backbone one, or take decoder='full'.")


def make_terms(
    backbone: Backbone,
    clean: Tensor,
    target: Tensor | None,
    options: GuidanceOptions,
    psi: Psi | None,
    weight: Tensor | None,
    calls: Calls,
) -> list[Term]:
    """The active terms, with everything about the pictures that is computed once.

    Args:
        backbone: The model.
        clean: Latents, finite.
        target: Their pictures; ``None`` decodes the latents if a term needs pixels.
        options: Settings.
        psi: Features of the perceptual term.
        weight: [N, 1, H, W].
        calls: Where decoder and psi are counted.
    """
    decode = Decoding(backbone, options.decoder == "tiny", calls)
    measured = options.zeta1 > 0
    felt = psi if options.zeta2 > 0 else None
    in_pixels = measured and options.measurement == "pixels"
    size = min(options.most_rows, backbone.rows_that_fit(clean.shape[1:], decoder=True))

    def chunks(work: Callable[[int, int], None]) -> None:
        in_chunks(len(clean), size, work)

    if target is None and (in_pixels or (felt is not None and felt.space == "pixels")):
        (target,) = joined(lambda z: (decode.plain(z),), clean, chunks)
    terms: list[Term] = []
    if measured:
        reference = target if in_pixels else clean
        assert reference is not None
        terms.append(Measurement(options.zeta1, reference, weight, decode if in_pixels else None, calls))
    if felt is not None:
        seen, through = (target, decode) if felt.space == "pixels" else (clean, None)
        assert seen is not None
        terms.append(Perceptual(options.zeta2, felt, seen.to(clean), weight, through, calls, chunks))
    return terms
