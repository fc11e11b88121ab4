"""Perceptual manifold guidance: the pure step, and the loop over noise levels."""
