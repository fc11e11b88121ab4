"""The library: no host, no widgets."""
