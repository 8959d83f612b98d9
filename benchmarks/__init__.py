"""Benchmarks. Each command writes a dated page to `benchmarks/results` and prints it.

Rooms: `serving` (the server and its load generator), `peers` (other servers beside it), `training`, `capacity` (the
closed-form model), and the module `export`. All use `common`. `peers` may import `serving`; otherwise no room imports
another one.
"""
