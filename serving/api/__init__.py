"""The calls that clients can make, without a transport: gRPC (`rpc`) and HTTP (`web`) are shells over this room.

`ClassificationService` and `record_labels` are the use cases; they and `errors` import neither gRPC nor protobuf.
`ClassifierCalls` and `InferenceCalls` answer the messages of `pawserve.v1` and of the Open Inference Protocol. `access`
decides which client may make which call. May import every room above it: `system` to `observability`.
"""
