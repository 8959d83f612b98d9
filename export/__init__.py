"""From a training run to files that can be deployed: a bundle, TensorRT engines, a Triton model repository.

Lowest first: `inference`; the room `graphs` (ONNX graphs of a trained network); the room `checks` (whether a graph
agrees with the network); `mixed_precision`, `calibrate`, `adaptive`, `engine_layers` and `tensorrt_plan`, which
commands use; `options` of the commands; the room `cards` (bundle.html and the model card); `engine_files`; the commands
`bundle`, `engine`, `inspection` and `triton`; `__main__`. May import `training` and `serving`.
"""

import serving  # noqa: F401  (sets what ONNX Runtime and gRPC read when they are imported)
