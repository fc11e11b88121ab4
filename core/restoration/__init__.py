"""Restoration by diffusion: a picture → what it may have been, and two looks at it on the way there."""
