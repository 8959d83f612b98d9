"""The confusion matrix and its rates as messages. A module of its own: `predict` uses it without a statistics store."""

from serving.comparison.proportions import Rate
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.confusion import ConfusionMatrix


def to_model_statistics(model: str, matrix: ConfusionMatrix) -> pb.ModelStatistics:
    """The confusion matrix of a model, and the rates that are derived from it."""
    return pb.ModelStatistics(
        model=model,
        classes=matrix.classes,
        confusion_matrix=[pb.ConfusionRow(predicted=row_K) for row_K in matrix.counts_KK.tolist()],
        predictions=matrix.total,
        labels=matrix.total,
        accuracy=to_rate(matrix.accuracy()),
        class_statistics=[_to_class_statistics(matrix, index) for index in range(len(matrix.classes))],
        matthews_correlation=matrix.matthews(),
    )


def to_rate(rate: Rate | None) -> pb.Rate | None:
    """A rate with its interval."""
    if rate is None:
        return None
    return pb.Rate(value=rate.value, lower=rate.lower, upper=rate.upper, count=rate.count)


def _to_class_statistics(matrix: ConfusionMatrix, index: int) -> pb.ClassStatistics:
    return pb.ClassStatistics(
        label=matrix.classes[index],
        precision=to_rate(matrix.precision(index)),
        recall=to_rate(matrix.recall(index)),
        f1=matrix.f1(index),
    )
