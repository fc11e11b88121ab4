"""Families of diffusion models, one row each."""
