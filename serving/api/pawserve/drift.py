"""Drift as a message of `pawserve.v1`."""

from collections.abc import Sequence
from heapq import nlargest

from serving.models.drift import WINDOW, Distribution, Drift
from serving.pb.pawserve.v1 import classifier_pb2 as pb

MAX_CLASSES = 20
"""Number of classes that are listed: those that differ most."""


def to_drift(drift: Drift, classes: Sequence[str]) -> pb.Drift:
    """The last predictions of a version, compared with those on the validation images."""
    edges = [0.0, *drift.confidence_edges, 1.0]
    ranges = [f"{low:.6g} to {high:.6g}" for low, high in zip(edges, edges[1:], strict=False)]
    return pb.Drift(
        predictions=drift.predictions,
        window=WINDOW,
        validation_images=drift.images,
        distributions=[
            _to_distribution(each, classes if each.name == "classes" else ranges) for each in drift.distributions
        ],
        alarm=drift.alarm,
        unavailable=drift.unavailable,
    )


def _to_distribution(distribution: Distribution, labels: Sequence[str]) -> pb.DriftDistribution:
    images, predictions = sum(distribution.reference), max(1, sum(distribution.counts))
    counted = zip(labels, distribution.reference, distribution.counts, strict=True)
    bins = [(label, expected / images, count / predictions) for label, expected, count in counted]
    if distribution.name == "classes":
        bins = nlargest(MAX_CLASSES, bins, key=lambda each: abs(each[1] - each[2]))
    message = pb.DriftDistribution(
        name=distribution.name,
        bins=[pb.DriftBin(label=label, expected=expected, share=share) for label, expected, share in bins],
    )
    if shift := distribution.shift:
        message.stability_index = shift.stability_index
        message.p_value = shift.p_value
        message.alarm = shift.alarm
    return message
