"""A bundle in; predictions over gRPC out."""

import os

# From its release 1.29 on, ONNX Runtime tells its makers the names and hashes of the models that it loads, unless this
# is set when it is imported. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
