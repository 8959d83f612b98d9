"""Benchmarks of the server, each with a real server in a process of its own.

`throughput`, `streaming`, `labels`, `drift` and `ray` are commands; `load` and `calls` generate load;
`baseline_server` is the simplest comparable server. May import `benchmarks.common` and `serving`.
"""
