"""The optimisation loop and what belongs to it."""
