"""Images in; a run out."""

import serving  # noqa: F401  (keeps ONNX Runtime from reporting what it loads)
