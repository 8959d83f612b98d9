"""A Triton model of the Python backend: BYTES `[N, 1]` of encoded images to FP32 `[N, K]` of probabilities.

Each instance is a process of its own, to which Triton's dynamic batcher gives several requests at a time.
"""

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as triton  # provided by the backend

from benchmarks.in_process import InProcessClassifier


class TritonPythonModel:
    """The class that the Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle that the model's configuration names."""
        parameters = json.loads(args["model_config"])["parameters"]
        folder, threads = (parameters[name]["string_value"] for name in ("bundle", "threads"))
        self._classifier = InProcessClassifier(Path(folder), threads=int(threads))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one batch with one engine call."""
        contents = [triton.get_input_tensor_by_name(request, "images").as_numpy().ravel() for request in requests]
        images = [self._classifier.decode(image) for request in contents for image in request]
        probabilities_NK = self._classifier.classify(images)
        responses, row = [], 0
        for request in contents:
            tensor = triton.Tensor("probabilities", probabilities_NK[row : row + len(request)])
            responses.append(triton.InferenceResponse([tensor]))
            row += len(request)
        return responses
