"""Inference engines: one batch of views to probabilities, on a CPU or a GPU.

`base.Engine` is the protocol, which ONNX Runtime (`onnx`) and TensorRT (`tensorrt`) implement. `tensorrt_library` and
`tensorrt_rtx` hold what differs between TensorRT and TensorRT for RTX. `selection` chooses between the runtimes, and
`tensorrt_choice` between engines; `single_row` speeds up single requests; `separate` is an engine in a process of its
own (`separate_process`), which can be paused. May import `system`, `context`, `image` and `bundle`.
"""
