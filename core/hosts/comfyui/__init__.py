"""ComfyUI's MODEL, CLIP and VAE as a Backbone."""
