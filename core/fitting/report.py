"""What a fit says of itself, in words."""

from __future__ import annotations

from .ladders import UnratedFit
from .rated import RatedFit


def to_text(fit: RatedFit | UnratedFit) -> str:
    """A few lines for the user."""
    return _rated(fit) if isinstance(fit, RatedFit) else _unrated(fit)


def _rated(fit: RatedFit) -> str:
    found, report = fit.validation, fit.report
    lines = [
        f"held-out agreement with {fit.head.meta.calibrated_on}: SRCC {found.srcc:.3f} (95 % interval "
        f"{found.srcc_low:.3f} to {found.srcc_high:.3f}), PLCC {found.plcc:.3f}, on {found.n} pictures of "
        f"{fit.head.meta.training_set} ({len(set(report.fold))} folds by content)",
        f"ratings within one spread of the held-out score: {report.within_one:.0%} (68 % is right), within 1.96: "
        f"{report.within_wide:.0%} (95 % is right)",
        "chosen: " + ", ".join(f"{name} {_short(value)}" for name, value in report.chosen.items()),
    ]
    curve = (
        (point.pictures, f"{point.srcc:.3f} ({point.srcc_low:.3f} to {point.srcc_high:.3f})") for point in fit.curve
    )
    lines += [f"fitted to {pictures} pictures: SRCC {srcc}" for pictures, srcc in curve]
    return "\n".join(lines)


def _unrated(fit: UnratedFit) -> str:
    found = fit.report
    return "\n".join(
        [
            "fitted without ratings: scores rank, and no agreement with people is claimed",
            f"steps of damage on held-out pictures that lowered the score: {found.falling:.1%} of {found.steps} "
            f"(95 % interval {found.low:.1%} to {found.high:.1%})",
            f"of kinds of damage that the head had not seen: {found.unseen_falling:.1%} of {found.unseen_steps} "
            f"({found.unseen_low:.1%} to {found.unseen_high:.1%})",
        ]
    )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
