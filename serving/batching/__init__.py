"""Requests to batches to results, in an order that is fair to the clients.

`DynamicBatcher` admits requests, queues their images and lets worker threads decode and compute them. May import
`system`, `context`, `image`, `bundle` and `engine`.
"""
