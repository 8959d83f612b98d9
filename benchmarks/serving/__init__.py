"""Benchmarks of the server, each with a real server in a process of its own.

Most modules are commands; their docstrings show how to run them. `load` and `calls` generate load, `baseline_server` is
the simplest comparable server, and `thread_times` a server that reports CPU time by kind of thread. May import
`benchmarks.common`, `benchmarks.processes`, `benchmarks.rounds`, `benchmarks.in_process`, `benchmarks.capacity` and
`serving`.
"""
