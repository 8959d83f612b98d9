"""The gRPC server: errors, interceptors, health, reflection and the services.

`rpc.pawserve` is `pawserve.v1.Classifier`, `rpc.open_inference` is the Open Inference Protocol. May import every room
above it.
"""
