"""ONNX graphs of a trained network: fp32, fp16, INT8 for ONNX Runtime and INT8 for TensorRT.

`onnx` defines `DeployedModel` and exports it; `fp16` and `quantize` lower its precision and measure the sensitivity of
single layers; `fold_columns` makes INT8 graphs faster, and `half_body` computes in float16 between INT8 layers. May
import `export.inference`, `training` and `serving`.
"""
