"""What core asks of a diffusion model, and what differs between families."""
