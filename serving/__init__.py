"""A bundle in; predictions over gRPC out."""

import os

# From its release 1.29 on, ONNX Runtime tells its makers the names and hashes of the models that it loads, unless this
# is set when it is imported. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# gRPC's core writes a line for each handshake that fails, unless this is set when it is imported: whoever scans ports
# would fill the log, and with lines that are no JSON. What it calls an error it still writes.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
