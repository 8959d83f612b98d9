"""Calibration for INT8: choose images and measure the range of every activation, from which scales are made."""

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator

from export.inference import Progress, no_progress
from serving.bundle.manifest import INPUT_NAME
from training.data.image_files import decodable, hash_images, list_images, say_skipped
from training.data.images import LabelledImage
from training.data.layout import DataError, class_folders

METHOD = "mean over images of each activation's smallest and largest value"
"""Recorded in the bundle. Means of extremes are narrower than the extremes: rare outliers are clipped, and the other
values get a finer resolution."""
MIN_IMAGES = 16
"""Fewer images say too little about an activation's range."""


def choose_images(images: Sequence[LabelledImage], count: int) -> list[LabelledImage]:
    """Choose at most `count` images at random with a fixed seed, evenly over the classes.

    Raises:
        DataError: if there are none.
    """
    if not images:
        raise DataError("there are 0 images to calibrate on: name a folder with some as --calibration")
    shuffled = [images[row] for row in np.random.default_rng(0).permutation(len(images))]
    ranks_in_class: defaultdict[int, Iterator[int]] = defaultdict(itertools.count)
    ranks = [next(ranks_in_class[image.label]) for image in shuffled]
    return [shuffled[row] for row in np.argsort(ranks, kind="stable")[:count]]


def check_count(images: int) -> None:
    """Raise DataError if these are too few images to calibrate INT8 on."""
    if images < MIN_IMAGES:
        raise DataError(
            f"INT8 needs at least {MIN_IMAGES} images to calibrate on, and there are {images}: name a folder with more "
            "as --calibration, or export with other --precisions"
        )


def list_folder(folder: Path) -> list[LabelledImage]:
    """The images below a folder that can be decoded, sorted by path; its subfolders, if there are any, are the classes.

    What is left out is reported with the reasons.

    Raises:
        DataError: if it is not a folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one with images like those to be served")
    folders, loose = class_folders(folder)
    images, unread = list_images(folders or {"": [folder]})
    images, unreadable = hash_images(images, None)
    images, undecodable = decodable(images)
    say_skipped([*(loose if folders else []), *unread, *unreadable, *undecodable])
    return images


def measure_ranges(graph: bytes, views_NHWC: NDArray[np.uint8], on_progress: Progress = no_progress) -> TensorsData:
    """Run the fp32 graph on views, uint8 `[N, crop, crop, 3]`, one at a time.

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
        calibrator.collect_data(_ViewReader(views_NHWC, on_progress))
        ranges: TensorsData = calibrator.compute_data()
    return ranges


class _ViewReader(CalibrationDataReader):  # type: ignore[misc]  # the library ships no types
    """Yields the views one at a time."""

    def __init__(self, views_NHWC: NDArray[np.uint8], on_progress: Progress) -> None:
        self._views_NHWC = views_NHWC
        self._done = 0
        self._on_progress = on_progress

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        if self._done == len(self._views_NHWC):
            return None
        self._done += 1
        self._on_progress(self._done, len(self._views_NHWC))
        return {INPUT_NAME: self._views_NHWC[self._done - 1 : self._done]}
