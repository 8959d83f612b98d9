"""Predictions, labels and models as messages of `pawserve.v1`."""

from serving.api.labels import RecordedLabel
from serving.api.predictions import ClassifySpec, SignedPrediction
from serving.api.status import to_status
from serving.models.repository import VersionStatus
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.feedback import LabelUnknown
from serving.tokens.tokens import ReferenceInvalid


def to_result(spec: ClassifySpec, result: SignedPrediction | Exception, field: str) -> pb.ImageResult:
    """The result of one image; `field` is the image's field in the request."""
    if isinstance(result, Exception):
        return to_error_result(result, field)
    classes, probabilities_K = spec.model.manifest.classes, result.probabilities_K
    ranked = [
        pb.ClassProbability(label=classes[index], probability=probabilities_K[index])
        for index in result.ranking_K[: spec.top_k]
    ]
    prediction = pb.Prediction(classes=ranked, token=result.token, views=result.views, id=result.record.id.hex())
    return pb.ImageResult(prediction=prediction)


def to_error_result(error: Exception, field: str) -> pb.ImageResult:
    """The result of an image without a prediction."""
    match error:
        case LabelUnknown():
            part = "label"
        case ReferenceInvalid():
            part = "reference"
        case _:
            part = "content"
    return pb.ImageResult(error=to_status(error, f"{field}.{part}"))


def to_label_result(result: RecordedLabel | Exception, field: str) -> pb.LabelResult:
    """The result of one label; `field` is the label's field in the request."""
    if isinstance(result, Exception):
        part = "label" if isinstance(result, LabelUnknown) else "token"
        return pb.LabelResult(error=to_status(result, f"{field}.{part}"))
    record, classes = result.label.record, result.classes
    recorded = pb.RecordedLabel(
        model=record.model_version.resource,
        predicted=classes[record.predicted],
        label=classes[result.label.actual],
        previous_label=None if result.previous is None else classes[result.previous],
    )
    return pb.LabelResult(recorded=recorded)


def to_model(status: VersionStatus, shadow_share: float, *, primary: bool) -> pb.Model:
    """A version, served or not, without the server's own limits; `shadow_share` is 0 if it is no shadow version."""
    message = pb.Model(
        name=status.version.resource,
        state=pb.ModelState.Name(status.state.value),
        state_reason=status.reason,
        primary=primary,
    )
    if shadow_share:
        message.shadow_share = shadow_share
    if (model := status.model) is None:
        return message
    manifest, layout, tuned = model.manifest, model.layout, model.tuned
    message.classes.extend(manifest.classes)
    message.arch = manifest.arch
    message.engine = model.engine
    message.engine_reason = model.engine_reason
    message.precision = model.precision
    message.runtime = model.runtime
    message.recommended_views = manifest.recommended_views
    message.plan.CopyFrom(
        pb.EnginePlan(
            instances=layout.instances,
            threads=layout.threads,
            max_batch_size=layout.max_batch_size,
            rows_per_second=tuned.rows_per_second if tuned else None,
            lone_threads=layout.single_row_threads,
        )
    )
    if tuned:
        message.plan.latency.FromNanoseconds(round(tuned.latency_s * 1e9))
    if accuracy := manifest.metrics.get("accuracy"):
        message.validation_accuracy = accuracy["value"]
    if manifest.adaptive_threshold is not None:
        message.adaptive_threshold = manifest.adaptive_threshold
    return message
