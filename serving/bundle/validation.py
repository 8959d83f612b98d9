"""How a version predicted on the validation images: what drift is measured against."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

MAX_BINS = 20
PARTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Quantiles of the confidence at which two bins may meet."""
MIN_WIDTH = 0.01
"""Minimum width of a bin of confidence: smaller changes, such as by another precision, mean nothing."""


@dataclass(frozen=True)
class ValidationPredictions:
    """Predicted classes and confidence on the validation images, counted, of one view of each.

    Raises:
        ValueError: if the counts do not belong together.
    """

    class_counts: tuple[int, ...]
    """Number of images predicted as each class."""
    confidence_edges: tuple[float, ...]
    """Where the bins of confidence, the highest probability, meet; ascending. A bin includes its lower edge."""
    confidence_counts: tuple[int, ...]
    """Images in each bin: one more than there are edges."""

    def __post_init__(self) -> None:
        counts, edges = (*self.class_counts, *self.confidence_counts), self.confidence_edges
        if not all(isinstance(count, int) and 0 <= count < 2**53 for count in counts):
            raise ValueError("predictions has counts that are not whole numbers from 0")
        if len(self.confidence_counts) != len(edges) + 1 or len(edges) >= MAX_BINS:
            raise ValueError(
                f"predictions has {len(edges)} edges and {len(self.confidence_counts)} bins of confidence; needed are "
                f"up to {MAX_BINS} bins, one more than edges"
            )
        ascending = all(low < high for low, high in zip(edges, edges[1:], strict=False))
        if not ascending or not all(0 < edge <= 1 for edge in edges):
            raise ValueError(f"predictions has the edges {list(edges)}; they must ascend within 0 to 1")
        if sum(self.class_counts) != sum(self.confidence_counts) or not self.images:
            raise ValueError(
                f"predictions counts {sum(self.class_counts)} images by class and {sum(self.confidence_counts)} by "
                "confidence; both must count the same images, at least one"
            )

    @property
    def images(self) -> int:
        """The number of validation images."""
        return sum(self.confidence_counts)

    def bin_of(self, confidence: float) -> int:
        """The bin of a confidence, from 0."""
        return bisect_right(self.confidence_edges, confidence)

    @classmethod
    def count(cls, predicted: Sequence[int], confidence: Sequence[float], classes: int) -> Self:
        """Count predictions, with bins of confidence that hold a tenth of the images each, finer for the lowest ones.

        Bins that would be narrower than MIN_WIDTH are parts of their upper neighbours.

        Args:
            predicted: the class index of each image, at least one.
            confidence: the highest probability of each.
            classes: the number of classes.
        """
        ranked = sorted(confidence)
        edges: tuple[float, ...] = ()
        for part in PARTS:
            edge = ranked[int(part * len(ranked))]
            if edge - (edges[-1] if edges else ranked[0]) >= MIN_WIDTH:
                edges += (edge,)
        class_counts = np.bincount(predicted, minlength=classes)
        confidence_counts = np.bincount(np.searchsorted(edges, ranked, "right"), minlength=len(edges) + 1)
        return cls(tuple(class_counts.tolist()), edges, tuple(confidence_counts.tolist()))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_fields` has written.

        Raises:
            ValueError: if it is malformed.
        """
        try:
            edges = tuple(map(float, fields["confidence_edges"]))
            return cls(tuple(fields["class_counts"]), edges, tuple(fields["confidence_counts"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"predictions is malformed: {type(error).__name__} {error}") from error

    def to_fields(self) -> dict[str, Any]:
        """The fields for JSON."""
        return {name: list(value) for name, value in vars(self).items()}
