"""``latent-critic benchmark``."""

from __future__ import annotations

from .arguments import Subparsers


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
