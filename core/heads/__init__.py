"""Heads: features of an image → its score, with the files that they are kept in."""
