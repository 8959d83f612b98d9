"""Activations of a network's body, computed once for each image and kept on disk.

Main types: `ActivationStore`, `Activations`, `ActivationSource` and `ActivationProvider`, which finds or computes them.
May import `console`, `hardware`, `distributed`, `networks` and `data`.
"""
