"""The model versions that are served.

`loader.load_model` loads a version with a layout of engines (`layout`, measured by `tuning`); `classifier.Classifier`
classifies images with it; `repository.ModelRepository` holds the versions that are served, and `watcher.ModelWatcher`
replaces them as the model folder changes. May import every room above it: `system` to `statistics`.
"""
