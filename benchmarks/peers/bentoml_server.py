"""A BentoML service: the body of POST /classify is an encoded image, the response JSON with its probabilities.

Environment variables PEERS_* hold its settings, since `bentoml serve` imports this file.
"""

import os
from pathlib import Path

import bentoml

from benchmarks.in_process import InProcessClassifier

BUNDLE = Path(os.environ["PEERS_BUNDLE"])
MAX_BATCH_SIZE = int(os.environ["PEERS_MAX_BATCH_SIZE"])

service = bentoml.service(
    workers=int(os.environ["PEERS_WORKERS"]),
    threads=int(os.environ["PEERS_THREADS"]),
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)

if MAX_BATCH_SIZE > 1:

    @service
    class Classify:
        """A service with BentoML's adaptive batching."""

        def __init__(self) -> None:
            self._classifier = InProcessClassifier(BUNDLE)

        @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE, max_latency_ms=60_000)  # type: ignore[untyped-decorator]
        def classify(self, images: list[Path]) -> list[list[float]]:
            decoded = [self._classifier.decode(image.read_bytes()) for image in images]
            probabilities: list[list[float]] = self._classifier.classify(decoded).tolist()
            return probabilities

else:

    @service
    class Classify:  # type: ignore[no-redef]
        """One image per call, in a thread of the worker."""

        def __init__(self) -> None:
            self._classifier = InProcessClassifier(BUNDLE)

        @bentoml.api  # type: ignore[untyped-decorator]
        def classify(self, image: Path, /) -> list[float]:
            decoded = [self._classifier.decode(image.read_bytes())]
            probabilities: list[float] = self._classifier.classify(decoded)[0].tolist()
            return probabilities
