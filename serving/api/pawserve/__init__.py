"""`pawserve.v1`: the calls of its service and their messages, for all transports."""
