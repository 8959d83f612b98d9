"""Benchmarks. Each command writes a dated page to `benchmarks/results` and prints it.

Rooms: `serving` (the server and its load generator), `peers` (other servers beside it), `training`, `capacity` (the
closed-form model), and the module `export`. All use `common`, and the comparisons with no server use `in_process`.
`peers` may import `serving`; otherwise no room imports another one.
"""
