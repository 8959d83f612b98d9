"""The last predictions of a version, compared with those on the validation images: drift that shows without labels."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

from serving.bundle.validation import ValidationPredictions
from serving.comparison.drift import Shift, compare_counts

WINDOW = 200
"""Predictions of a version that are compared: the last ones."""
MIN_PREDICTIONS = 50
"""Fewer are not compared."""
NO_REFERENCE = "no reference in the bundle: export the run again"


@dataclass(frozen=True)
class Distribution:
    """How one property of the last predictions is distributed."""

    name: str
    """"classes" or "confidence"."""
    reference: Sequence[int]
    """Validation images in each bin: in each class, or in each bin of confidence, the lowest first."""
    counts: Sequence[int]
    """Predictions in each bin."""
    shift: Shift | None
    """The difference; None while there are too few predictions."""


@dataclass(frozen=True)
class Drift:
    """What a window holds at one moment."""

    predictions: int
    """Number of predictions, at most WINDOW."""
    images: int
    """Validation images that it is compared with."""
    confidence_edges: Sequence[float]
    distributions: Sequence[Distribution]
    """Distributions of the classes and of the confidence; none without a reference."""
    unavailable: str
    """Why nothing is compared; empty if it is."""

    @property
    def alarm(self) -> bool:
        """Whether one of the distributions differs."""
        return any(each.shift and each.shift.alarm for each in self.distributions)


class DriftWindow:
    """Counts the last predictions of one version in this process; any thread may call it.

    It takes as much memory for any number of predictions, and about a microsecond for each.

    Args:
        reference: the predictions on the validation images; None if the bundle has none.
    """

    def __init__(self, reference: ValidationPredictions | None) -> None:
        self._reference = reference
        self._last: deque[tuple[int, int]] = deque(maxlen=WINDOW)  # class index and bin of confidence
        self._lock = Lock()  # since a deque cannot be read while it changes

    def add(self, predicted: int, confidence: float) -> None:
        """Count a prediction: its class index and its highest probability."""
        if self._reference is None:
            return
        number = self._reference.bin_of(confidence)
        with self._lock:
            self._last.append((predicted, number))

    def read(self) -> Drift:
        """Compare the last predictions with the reference."""
        reference = self._reference
        if reference is None:
            return Drift(0, 0, (), (), NO_REFERENCE)
        with self._lock:
            last = list(self._last)

        def compare(name: str, expected: Sequence[int], indices: Iterable[int]) -> Distribution:
            found = Counter(indices)
            counts = [found[index] for index in range(len(expected))]
            shift = compare_counts(expected, counts) if len(last) >= MIN_PREDICTIONS else None
            return Distribution(name, expected, counts, shift)

        distributions = (
            compare("classes", reference.class_counts, (predicted for predicted, _ in last)),
            compare("confidence", reference.confidence_counts, (number for _, number in last)),
        )
        return Drift(len(last), reference.images, reference.confidence_edges, distributions, "")
