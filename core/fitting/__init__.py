"""Fit a head for a loaded model: to rated pictures, or without ratings to ladders of known damage."""
