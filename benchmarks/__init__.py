"""Benchmarks. Each command writes a dated page to `benchmarks/results` and prints it.

Rooms: `serving` (the server and its load generator), `peers` (other servers beside it), `training`, `capacity` (the
closed-form model), `gpu`, and the module `export`. They share `common`, `processes` and `rounds`; the comparisons with
the work of no server use `in_process`. `serving` may import `capacity`; `peers` may import `serving`; `gpu` may import
`serving` and `training`.
"""
