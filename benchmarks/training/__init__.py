"""Benchmarks of training: inference engines for activations, an epoch of the whole network, and all of `fit`.

`python -m benchmarks.training` runs them. May import `benchmarks.common`, `benchmarks.processes`, `training` and
`serving`.
"""
