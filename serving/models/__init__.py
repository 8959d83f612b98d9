"""The model versions that are served.

`Classifier` classifies images with one version; `ModelRepository` holds the served versions; `ModelWatcher` follows the
model folder. May import every room above it: `system` to `statistics`.
"""
