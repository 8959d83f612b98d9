"""A LitServe server: the body of POST /predict is an encoded image, the response JSON with its probabilities."""

import argparse
from pathlib import Path
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body

from benchmarks.in_process import InProcessClassifier
from serving.cli.options import path


class Classify(litserve.LitAPI):  # type: ignore[misc]  # the library is not installed here
    """decode -> batch -> predict -> unbatch -> encode, as LitServe's guide names them; each worker is a process."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(**options)
        self._folder = folder

    def setup(self, device: str) -> None:
        self._classifier = InProcessClassifier(self._folder)

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> Any:
        return self._classifier.decode(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return list(inputs)

    def predict(self, images: Any) -> Any:
        return self._classifier.classify(images if isinstance(images, list) else [images])

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> dict[str, list[float]]:
        return {"probabilities": np.ravel(output).tolist()}


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=path, required=True)
    parser.add_argument("--port", type=int, required=True)
    for name in ("workers", "max-batch-size", "api-servers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--batch-timeout", type=float, default=0.0)
    parser.add_argument("--fast-queue", action="store_true")
    arguments = parser.parse_args()
    api = Classify(arguments.bundle, max_batch_size=arguments.max_batch_size, batch_timeout=arguments.batch_timeout)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=arguments.workers, fast_queue=arguments.fast_queue
    )
    server.run(
        host="127.0.0.1",
        port=arguments.port,
        num_api_servers=arguments.api_servers,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
