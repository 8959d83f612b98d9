"""The Open Inference Protocol of KServe and Triton: its calls and messages, for all transports.

`InferenceCalls` answers its messages. May import `api`, and every room above it.
"""
