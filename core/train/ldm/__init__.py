"""Training of the small embedded latent diffusion model: autoencoder first, then text encoder and denoiser."""
