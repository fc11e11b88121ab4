"""Scorers, one per file, and the registry of them."""
