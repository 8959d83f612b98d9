"""Replicas of the server on a Ray cluster, with Ray Serve.

`command` is the command `ray`; deploy/ray/serve.yaml names `app:build` and the functions of `ingress`. May import every
other room.
"""
