"""Answers of the inner layers in; their protobuf messages out."""

from collections.abc import Sequence

from serving.confusion import ConfusionMatrix, Rate
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.repository import VersionStatus
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


def to_model(status: VersionStatus, max_views: int) -> pb.Model:
    """What ListModels says of a version, served or not."""
    answer = pb.Model(name=status.resource, state=pb.ModelState.Name(status.state.value), state_reason=status.reason)
    if (model := status.model) is None:
        return answer
    manifest, chosen = model.manifest, model.chosen
    answer.classes.extend(manifest.classes)
    answer.arch = manifest.arch
    answer.engine = model.engine
    answer.engine_reason = model.engine_reason
    answer.precision = model.precision
    answer.runtime = model.runtime
    answer.max_views = max_views
    answer.plan.CopyFrom(
        pb.EnginePlan(
            instances=chosen.plan.instances,
            threads=chosen.plan.threads,
            max_batch_size=chosen.plan.max_batch_size,
            rows_per_second=chosen.rows_per_second,
        )
    )
    if chosen.latency_s is not None:
        answer.plan.latency.FromNanoseconds(round(chosen.latency_s * 1e9))
    if accuracy := manifest.metrics.get("accuracy"):
        answer.validation_accuracy = accuracy["value"]
    return answer


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
