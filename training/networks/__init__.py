"""Networks: pretrained body, head, weights, layer groups and export to ONNX.

Main types: `Backbone`, `Body`, `Head`, `Classifier` and `LayerGroup`.
May import `console`.
"""
