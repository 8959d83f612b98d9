"""Dynamic batching: rows of several requests in one engine call, in an order that is fair to the clients.

`batcher.DynamicBatcher` admits requests (`admission`), queues their images (`fair_queue`) and lets worker threads
decode and compute them (`workers`). May import `system`, `context`, `image`, `bundle` and `engine`.
"""
