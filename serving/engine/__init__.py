"""Inference engines: one batch of views to probabilities, on a CPU or a GPU.

`base.Engine` is the protocol, which ONNX Runtime (`onnx`) and TensorRT (`tensorrt`) implement; `selection` chooses
between them, and `single_row` speeds up single requests. May import `system`, `context`, `image` and `bundle`.
"""
