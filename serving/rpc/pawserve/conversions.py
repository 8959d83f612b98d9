"""Answers of the inner layers in; their protobuf messages out."""

from collections.abc import Sequence

from serving.models.repository import VersionStatus
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.store import Label


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
        model=record.model_version.resource,
        predicted=classes[record.predicted],
        label=classes[label.actual],
        previous_label=None if previous is None else classes[previous],
    )


def to_model(status: VersionStatus, max_views: int) -> pb.Model:
    """What ListModels says of a version, served or not."""
    answer = pb.Model(
        name=status.version.resource, state=pb.ModelState.Name(status.state.value), state_reason=status.reason
    )
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
            lone_threads=chosen.plan.single_row_threads,
        )
    )
    if chosen.latency_s is not None:
        answer.plan.latency.FromNanoseconds(round(chosen.latency_s * 1e9))
    if accuracy := manifest.metrics.get("accuracy"):
        answer.validation_accuracy = accuracy["value"]
    if manifest.adaptive_threshold is not None:
        answer.adaptive_threshold = manifest.adaptive_threshold
    return answer
