"""A BentoML service: an encoded picture as the body of POST /classify, JSON with its probabilities out.

`PEERS_*` in the environment hold its settings, since `bentoml serve` imports this file.
"""

import os
from pathlib import Path

import bentoml

from benchmarks.peers.pictures import Pictures

BUNDLE = Path(os.environ["PEERS_BUNDLE"])
WORKERS = int(os.environ["PEERS_WORKERS"])
THREADS = int(os.environ["PEERS_THREADS"])
MAX_BATCH_SIZE = int(os.environ["PEERS_MAX_BATCH_SIZE"])

service = bentoml.service(
    workers=WORKERS, threads=THREADS, logging={"access": {"enabled": False}}, metrics={"enabled": False}
)

if MAX_BATCH_SIZE > 1:

    @service
    class Classify:
        """With BentoML's adaptive batching."""

        def __init__(self) -> None:
            self._pictures = Pictures(BUNDLE)

        @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE, max_latency_ms=60_000)
        def classify(self, pictures: list[Path]) -> list[list[float]]:
            images = [self._pictures.decode(picture.read_bytes()) for picture in pictures]
            return self._pictures.probabilities(images).tolist()

else:

    @service
    class Classify:  # type: ignore[no-redef]
        """One picture a call, in a thread of the worker."""

        def __init__(self) -> None:
            self._pictures = Pictures(BUNDLE)

        @bentoml.api
        def classify(self, picture: Path, /) -> list[float]:
            return self._pictures.probabilities([self._pictures.decode(picture.read_bytes())])[0].tolist()
