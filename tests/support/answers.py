"""Comparison of the probabilities of two runtimes on the same images."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.bundle.manifest import Bundle, Precision
from serving.client import Client, Prediction
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S

TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}
"""Mean difference of a probability from the same file in ONNX Runtime on a CPU."""
MIN_SPREAD = 0.2
"""Standard deviation of the expected probabilities, below which reordered rows might go unnoticed."""


def check_answers(found_NK: NDArray[np.float32], expected_NK: NDArray[np.float32], precision: Precision) -> float:
    """Check that probabilities belong to the same images in the same order, and return their mean difference.

    Raises:
        AssertionError: if they differ by more than the precision explains, or the images could not tell.
    """
    spread = float(expected_NK[:, 0].std())
    assert spread >= MIN_SPREAD, f"the expected probabilities are all alike (standard deviation {spread:.4f})"
    difference = float(np.abs(found_NK - expected_NK).mean())
    assert difference <= TOLERANCES[precision], f"{precision} differs by {difference:.4f} in the mean"
    return difference


def ask(bundle: Bundle, state: Path, photos: Sequence[bytes], *options: object) -> tuple[list[float], float, str]:
    """The probability of the first class for each image, images per second, and the runtime."""
    models, manifest = bundle.folder.parent.parent, bundle.manifest
    which = ("--model", f"{manifest.name}/{manifest.version}", *options)
    with running_server(models, state, *which) as address, Client(address, timeout_s=LIMIT_S) as client:
        (model,) = client.list_models()
        list(client.classify_many(photos[:64]))
        begin = time.perf_counter()
        answers = sorted(client.classify_many(photos), key=lambda answer: answer.index)
        rate = len(photos) / (time.perf_counter() - begin)
    first = []
    for answer in answers:
        assert isinstance(answer.result, Prediction), answer.result
        first.append(dict(answer.result.classes)[manifest.classes[0]])
    return first, rate, model.runtime
