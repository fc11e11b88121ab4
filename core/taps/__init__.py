"""One forward, recorded."""
