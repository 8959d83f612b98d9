"""A Triton model of the Python backend: BYTES `[N, 1]` of encoded pictures in, FP32 `[N, K]` of probabilities out.

Each instance is a process of its own, which Triton's dynamic batcher hands several requests at a time.
"""

import json
from pathlib import Path

import triton_python_backend_utils as triton  # provided by the backend

from benchmarks.peers.pictures import Pictures


class TritonPythonModel:
    """What the Python backend asks of a model."""

    def initialize(self, args):
        """Load the bundle that the model's configuration names."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._pictures = Pictures(
            Path(parameters["bundle"]["string_value"]), threads=int(parameters["threads"]["string_value"])
        )

    def execute(self, requests):
        """Answer the requests of one batch with one engine call."""
        contents = [triton.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel() for request in requests]
        images = [self._pictures.decode(picture) for request in contents for picture in request]
        probabilities_NK = self._pictures.probabilities(images)
        responses, row = [], 0
        for request in contents:
            answer = triton.Tensor("PROBABILITIES", probabilities_NK[row : row + len(request)])
            responses.append(triton.InferenceResponse([answer]))
            row += len(request)
        return responses
