"""One batch of views to probabilities, on a CPU or a GPU.

`Engine` is the protocol; ONNX Runtime and TensorRT implement it, and `selection` chooses between them. May import
`system`, `image` and `bundle`.
"""
