"""The plot of a confusion matrix, for two classes and for very many."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.api.pawserve.statistics import to_statistics
from serving.bundle.model_version import ModelVersion
from serving.cli.plot import CORRECT, WHITE, draw_confusion_matrix, plot_confusion_matrix
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.calibration import to_bins
from serving.statistics.confusion import ConfusionMatrix
from serving.statistics.store import VersionStatistics


def statistics(counts_KK: list[list[int]] | np.ndarray, name: str = "class") -> pb.ModelStatistics:
    counts_KK = np.array(counts_KK)
    classes = tuple(f"{name} {k}" for k in range(len(counts_KK)))
    return to_statistics(
        VersionStatistics(ModelVersion("pets", 1), classes, ConfusionMatrix(classes, counts_KK), 10, 0, to_bins([]))
    )


def colours(image: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in image.getcolors(maxcolors=1 << 24)}


def test_without_errors_only_the_diagonal_is_shaded() -> None:
    image = draw_confusion_matrix(statistics([[500, 0], [0, 3]]))
    pixels = np.asarray(image)
    correct = np.argwhere((pixels == CORRECT).all(axis=2))
    top, left = correct.min(axis=0)
    side = (correct.max(axis=0) - correct.min(axis=0)).max() // 2
    for row, column, shade in ((0, 0, CORRECT), (0, 1, WHITE), (1, 0, WHITE), (1, 1, CORRECT)):
        corner = pixels[top + row * side + side // 8, left + column * side + side // 8]
        assert tuple(corner) == shade, (row, column)


def test_few_errors_are_visible() -> None:
    perfect = colours(draw_confusion_matrix(statistics([[1000, 0], [0, 1000]])))
    nearly = colours(draw_confusion_matrix(statistics([[990, 10], [0, 1000]])))
    reddish = [colour for colour in nearly - perfect if colour[0] > colour[2] + 8]
    assert reddish


@pytest.mark.parametrize("count", [2, 3, 23, 130, 1000])
def test_any_number_of_classes_gives_an_image_of_reasonable_size(count: int, tmp_path: Path) -> None:
    path = tmp_path / "matrix.png"
    plot_confusion_matrix(statistics(np.eye(count, dtype=np.int64) * 7, "a class with quite a long name, number"), path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert 400 < max(image.size) < 5000
    assert [entry.name for entry in tmp_path.iterdir()] == ["matrix.png"]


def test_counts_in_the_billions_and_names_in_any_script_can_be_drawn() -> None:
    draw_confusion_matrix(statistics(np.full((30, 30), 10**10), "貓 🐈"))
