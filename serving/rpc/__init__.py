"""The gRPC server: interceptors, health, reflection, streams and the services, over the calls of `api`.

`errors` writes API errors as gRPC statuses. May import every room above it: `system` to `api`.
"""
