"""The closed-form capacity model: how many replicas, CPUs and network cards a load needs.

`model` holds the measured costs and the formulas. May import `benchmarks.common` and `serving`.
"""
