"""Metrics, traces and the access log.

`Observability` makes the observers that a server's settings ask for. May import every room above it: `system` to
`security`.
"""
