"""The Open Inference Protocol over REST, with Triton's extensions: a thin shell over `InferenceCalls`.

`InferenceEndpoints` are its routes. May import what `web` may, and its modules but `app` and `http_server`.
"""
