"""What an export writes and a server loads: a folder of ONNX files with a manifest.

`Bundle` is the manifest (`model.json`), checked; `folder` finds the bundles of a model repository. May import `system`
and `image`.
"""
