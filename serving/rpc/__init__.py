"""The gRPC server: interceptors, health, reflection and the services.

`ClassificationService` is the use case behind all protocols; `rpc.pawserve` serves it as `pawserve.v1.Classifier`,
`rpc.open_inference` as the Open Inference Protocol. `api_errors` describes errors without gRPC; `errors` writes them as
gRPC statuses. May import every room above it: `system` to `observability`.
"""
