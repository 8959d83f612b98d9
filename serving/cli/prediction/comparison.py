"""Predictions against the names of the folders that hold the images."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType

from serving.api.pawserve.rates import to_model_statistics
from serving.cli.plot import plot_confusion_matrix
from serving.cli.prediction.files import FileResult
from serving.cli.tables import accuracy_view, statistics_to_dict
from serving.client import Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.confusion import ConfusionMatrix


class FolderComparison:
    """Counts predictions by the class that an image's folder is named after.

    Args:
        classes: the model's, K of them.
        folders: the folders whose images are compared. The label of an image is the name of the innermost folder
            around it, at or below one of these, that is named after a class.
    """

    def __init__(self, classes: Sequence[str], folders: Sequence[Path]) -> None:
        self._classes = tuple(classes)
        self._indices = {unicodedata.normalize("NFC", name): index for index, name in enumerate(classes)}
        self._folders = [folder.resolve() for folder in folders if folder.is_dir()]
        self._counts_KK = np.zeros((len(self._classes), len(self._classes)), np.int64)
        self._model = ""
        self.unlabelled = 0
        """Classified images in no folder that is named after a class."""

    def label_of(self, file: Path) -> str | None:
        """The class that the image's folder is named after; None if there is none."""
        place = file.absolute().parent
        root = next((each for each in self._folders if place.resolve().is_relative_to(each)), None)
        if root is None:
            return None
        while True:
            index = self._indices.get(unicodedata.normalize("NFC", place.name))
            if index is not None:
                return self._classes[index]
            if place.resolve() == root or place == place.parent:
                return None
            place = place.parent

    def add(self, result: FileResult) -> None:
        """Count a result; errors do not count."""
        if not isinstance(result.outcome, Prediction):
            return
        self._model = result.model
        self.add_prediction(result.file, result.outcome.classes[0][0])

    def add_prediction(self, file: Path, class_name: str) -> None:
        """Count the predicted class of an image."""
        label = self.label_of(file)
        predicted = self._indices.get(unicodedata.normalize("NFC", class_name))
        if label is None or predicted is None:
            self.unlabelled += 1
        else:
            self._counts_KK[self._indices[unicodedata.normalize("NFC", label)], predicted] += 1

    @property
    def compared(self) -> int:
        """Images with a label."""
        return int(self._counts_KK.sum())

    def is_incorrect(self, result: FileResult) -> bool:
        """Whether an image has a label, and another class was predicted."""
        label = self.label_of(result.file)
        return isinstance(result.outcome, Prediction) and label is not None and result.outcome.classes[0][0] != label

    def view(self) -> RenderableType:
        """The accuracy, the rates and the confusion matrix, for a terminal."""
        return accuracy_view(self._statistics())

    def to_dict(self) -> dict[str, Any] | None:
        """The same for JSON; None if no image has a label."""
        return statistics_to_dict(self._statistics()) if self.compared else None

    def plot(self, file: Path) -> None:
        """Draw the confusion matrix as a PNG file.

        Raises:
            OSError: if it cannot be written.
        """
        plot_confusion_matrix(self._statistics(), file)

    def _statistics(self) -> pb.ModelStatistics:
        """The confusion matrix and the rates, as the server has them of recorded labels."""
        return to_model_statistics(self._model, ConfusionMatrix(self._classes, self._counts_KK))
