"""Serve image classifiers over gRPC, and measure how accurate they are in production.

docs/design/rooms.md lists the rooms of this package in the order of their imports.
"""

import os

# ONNX Runtime, from its release 1.29 on, reports names and hashes of the models that it loads to its makers, unless
# this is set before it is imported. Set it to 0 to allow that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# gRPC's core logs each failed handshake, unless this is set before it is imported: a port scan would fill the log with
# lines that are not JSON. Its errors are still logged.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
