"""Metrics, traces and the access log.

May import every room above it, and `models` for the protocols of the observers that models call.
"""
