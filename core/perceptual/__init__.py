"""psi: perceptual feature extractors and their distances, one file each."""
