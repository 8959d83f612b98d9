"""Answers of the inner layers in; their protobuf messages out."""

from collections.abc import Sequence

from serving.confusion import ConfusionMatrix, Rate
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.repository import ServedModel
from serving.statistics import Label, VersionStatistics


def to_prediction(
    classes: tuple[str, ...], probabilities_K: Sequence[float], order: Sequence[int], views: int, token: str
) -> pb.Prediction:
    """A prediction with the classes of `order`."""
    labelled = [pb.ClassProbability(label=classes[index], probability=probabilities_K[index]) for index in order]
    return pb.Prediction(classes=labelled, token=token, views=views)


def to_recorded_label(label: Label, previous: int | None, classes: tuple[str, ...]) -> pb.RecordedLabel:
    """A label as it was recorded; `previous` is the index of the class that was recorded before, if one was."""
    record = label.record
    return pb.RecordedLabel(
        model=f"models/{record.model}/versions/{record.version}",
        predicted=classes[record.predicted],
        label=classes[label.actual],
        previous_label=None if previous is None else classes[previous],
    )


def to_model(model: ServedModel, max_views: int) -> pb.Model:
    """What ListModels says of a version."""
    manifest = model.manifest
    accuracy = manifest.metrics.get("accuracy")
    return pb.Model(
        name=manifest.resource,
        classes=manifest.classes,
        arch=manifest.arch,
        engine=model.engine,
        validation_accuracy=accuracy["value"] if accuracy else None,
        max_views=max_views,
        adaptive_threshold=manifest.adaptive_threshold,
    )


def to_statistics(statistics: VersionStatistics) -> pb.ModelStatistics:
    """What GetStatistics says of a version."""
    matrix = statistics.confusion
    answer = pb.ModelStatistics(
        model=f"models/{statistics.model}/versions/{statistics.version}",
        classes=statistics.classes,
        confusion_matrix=[pb.ConfusionRow(predicted=row_K) for row_K in matrix.counts_KK.tolist()],
        predictions=statistics.predictions,
        labels=matrix.total,
        accuracy=_to_rate(matrix.accuracy()),
        class_statistics=[_to_class_statistics(matrix, index) for index in range(len(statistics.classes))],
        matthews_correlation=matrix.matthews(),
    )
    if statistics.last_label_ms is not None:
        answer.last_label_time.FromMilliseconds(statistics.last_label_ms)
    return answer


def _to_class_statistics(matrix: ConfusionMatrix, index: int) -> pb.ClassStatistics:
    return pb.ClassStatistics(
        label=matrix.classes[index],
        precision=_to_rate(matrix.precision(index)),
        recall=_to_rate(matrix.recall(index)),
        f1=matrix.f1(index),
    )


def _to_rate(rate: Rate | None) -> pb.Rate | None:
    if rate is None:
        return None
    return pb.Rate(value=rate.value, lower=rate.lower, upper=rate.upper, count=rate.count)
