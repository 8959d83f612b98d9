"""The work of every measured server without a server: encoded images to class probabilities.

Imported in the peers' environments too, which have the core's libraries and ONNX Runtime beside the peer.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.bundle.manifest import Precision, open_bundle
from serving.engine.base import EngineLayout
from serving.engine.onnx import OnnxModel


class InProcessClassifier:
    """A bundle in one ONNX Runtime session, with pawserve's own decoding; several threads may call it.

    Args:
        folder: the bundle.
        precision: of the graph.
        threads: of the session.
    """

    def __init__(self, folder: Path, precision: Precision = "int8", *, threads: int = 1) -> None:
        bundle = open_bundle(folder)
        self._preprocess = bundle.manifest.preprocess
        layout = EngineLayout(instances=1, threads=threads, max_batch_size=64)
        (self._engine,) = OnnxModel(bundle, bundle.artifact(precision)).make_engines(layout)

    def decode(self, content: bytes) -> NDArray[np.uint8]:
        """View 0 of one encoded image, uint8 `[1, H, W, 3]`."""
        return self._preprocess.views(content)

    def classify(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Probabilities float32 `[N, K]` of decoded images, in one engine call."""
        return self._engine.run(images[0] if len(images) == 1 else np.concatenate(images))
