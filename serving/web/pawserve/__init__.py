"""`pawserve.v1` as JSON, below /v1: a thin shell over `ClassifierCalls`.

`ClassifierEndpoints` are its routes. May import what `web` may, and its modules but `app` and `http_server`.
"""
