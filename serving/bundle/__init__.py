"""What an export writes and a server loads: a folder of ONNX files with a manifest for each model version.

`Bundle` and its `Manifest` (`model.json`) are read with all hashes checked; `folder` finds the versions in a model
folder; `ModelVersion` is a version's name, with the only parsers of such names. May import `system` and `image`.
"""
