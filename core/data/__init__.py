"""Public data sets, distortions and split rules."""
