"""How good a classifier is: calibration, metrics and comparisons, computed from logits and labels.

Main types: `Evaluation` and `Metrics`. May import no other room.
"""
