"""Photos in; the range of every activation of a graph out: what INT8's scales are made from."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator

from serving.bundle.manifest import INPUT_NAME
from training.data.images import DataError, LabelledImage, class_names, list_images

METHOD = "mean over photos of each activation's smallest and largest value"
"""Recorded in the bundle. Averages of extremes are narrower than the extremes: rare outliers are clipped, the other
values are resolved more finely."""
LEAST = 16
"""Fewer photos than this say too little about an activation's range."""


def choose_photos(photos: Sequence[LabelledImage], count: int, seed: int = 0) -> list[LabelledImage]:
    """A seeded choice of at most `count` photos, spread evenly over the classes.

    Raises:
        DataError: if there are fewer than 16.
    """
    if len(photos) < LEAST:
        raise DataError(
            f"INT8 needs at least {LEAST} photos to calibrate on, and there are {len(photos)}: name a folder with "
            "more as --calibration, or export with --precisions fp32"
        )
    shuffled = [photos[row] for row in np.random.default_rng(seed).permutation(len(photos))]
    seen: dict[int, int] = {}
    turns = []
    for photo in shuffled:
        seen[photo.label] = seen.get(photo.label, 0) + 1
        turns.append(seen[photo.label])
    return [shuffled[row] for row in np.argsort(turns, kind="stable")[:count]]


def list_calibration(folder: Path) -> list[LabelledImage]:
    """The photos below a folder, sorted by path; folders in it count as classes, if there are any.

    Raises:
        DataError: if it is no folder.
    """
    if not folder.is_dir():
        raise DataError(f"--calibration is {folder}, which is no folder; give one with photos like those to be served")
    photos = list_images(folder, class_names(folder) or (".",))
    return [replace(photo, sha256=hashlib.sha256(photo.path.read_bytes()).digest()) for photo in photos]


def measure_ranges(graph: bytes, views_NHWC: NDArray[np.uint8], on_progress: Callable[[int, int], None]) -> TensorsData:
    """Run the fp32 graph on the views of photos, uint8 `[N, crop, crop, 3]`, one at a time.

    Returns:
        The range of each float activation.
    """
    with tempfile.TemporaryDirectory(prefix="pawserve.") as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(graph)
        calibrator = create_calibrator(
            path,
            augmented_model_path=str(Path(folder, "augmented.onnx")),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"moving_average": True},
        )
        calibrator.collect_data(_Reader(views_NHWC, on_progress))
        ranges: TensorsData = calibrator.compute_data()
    return ranges


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the library ships no types
    """Hands out views one at a time."""

    def __init__(self, views_NHWC: NDArray[np.uint8], on_progress: Callable[[int, int], None]) -> None:
        self._views_NHWC = views_NHWC
        self._next = 0
        self._on_progress = on_progress

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        if self._next == len(self._views_NHWC):
            return None
        self._next += 1
        self._on_progress(self._next, len(self._views_NHWC))
        return {INPUT_NAME: self._views_NHWC[self._next - 1 : self._next]}
