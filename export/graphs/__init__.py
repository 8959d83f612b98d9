"""ONNX graphs: written, converted and rewritten."""
