"""From labelled images to a trained classifier.

Rooms and modules, each of which may import only those before it: console, versions, hardware, distributed, recipes,
samples, networks, data, features, evaluation, checks, fitting, runs, reports, tracking, comparison, fit, evaluate,
find_lr, check, predict, command, cli. All may import `serving`.
"""

import serving  # noqa: F401  (sets what ONNX Runtime and gRPC read when they are imported)
