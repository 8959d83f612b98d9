"""`pawserve.v1`: the calls of its service and their messages, for all transports.

`ClassifierCalls` answers its messages. May import `api`, and every room above it.
"""
