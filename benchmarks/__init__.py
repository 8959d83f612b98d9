"""Measurements: each module is a command whose result pages are in `results/`."""
