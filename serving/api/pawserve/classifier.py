"""The calls of `pawserve.v1.Classifier`, for all transports."""

from collections.abc import Sequence
from pathlib import Path

from serving.api.classification import ClassificationService
from serving.api.errors import invalid
from serving.api.labels import record_labels
from serving.api.pawserve.comparison import ComparisonService
from serving.api.pawserve.conversions import to_error_result, to_label_result, to_model, to_result
from serving.api.pawserve.statistics import StatisticsService
from serving.api.predictions import ClassifySpec
from serving.bundle.manifest import Manifest
from serving.models.control import ModelControl
from serving.models.image_data import EncodedImage
from serving.models.repository import VersionStatus
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.feedback import Feedback
from serving.statistics.store import StatisticsStore

MAX_IMAGES = 64
MAX_LABELS = 10_000
MAX_ID_BYTES = 128


class ClassifierCalls:
    """Answers requests as the .proto file documents them. Exceptions are for `to_api_error`."""

    def __init__(
        self,
        models: ModelControl,
        feedback: Feedback,
        store: StatisticsStore,
        classification: ClassificationService,
    ) -> None:
        self._models = models
        self._feedback = feedback
        self._classification = classification
        self.statistics = StatisticsService(store, classification.find, classification.drift_of)
        """Answers the calls for statistics."""
        self.comparison = ComparisonService(store, classification.find)
        """Answers the calls for comparisons."""

    async def classify(
        self, request: pb.ClassifyRequest, timeout_s: float | None, contents: Sequence[EncodedImage] | None = None
    ) -> pb.ClassifyResponse:
        """Classify the images of a request.

        Args:
            contents: the contents of its images, in their order; None if they are in the request.
        """
        spec = self._check(request)
        _check_count("images", len(request.images), MAX_IMAGES)
        if contents is None:
            contents = [image.content for image in request.images]
        labels = [image.label for image in request.images]
        references = [image.reference for image in request.images]
        results = await self._classification.classify(spec, contents, labels, timeout_s, references=references)
        return pb.ClassifyResponse(
            model=spec.model.manifest.resource,
            results=[to_result(spec, result, f"images[{index}]") for index, result in enumerate(results)],
        )

    async def classify_one(
        self,
        request: pb.ClassifyStreamRequest,
        timeout_s: float | None,
        contents: Sequence[EncodedImage] | None = None,
    ) -> pb.ClassifyStreamResponse:
        """The response to one request of a stream, with the error if there is one; does not raise.

        Args:
            contents: the content of its image, or nothing if it has none; None if it is in the request.
        """
        response = pb.ClassifyStreamResponse(id=request.id)
        image = request.image

        def check() -> ClassifySpec:
            spec = self._check(request)
            response.model = spec.model.manifest.resource
            return spec

        try:
            if (length := len(request.id.encode())) > MAX_ID_BYTES:
                message = f"id has {length:,} bytes; at most {MAX_ID_BYTES} are allowed"
                raise invalid("ID_TOO_LONG", message, "id", most=str(MAX_ID_BYTES))
            content = image.content if contents is None else next(iter(contents), b"")
            spec, result = await self._classification.classify_waiting(
                check, content, image.label, timeout_s, reference=image.reference
            )
            response.result.CopyFrom(to_result(spec, result, "image"))
        except Exception as error:
            response.result.CopyFrom(to_error_result(error, "image"))
        return response

    async def record_labels(self, request: pb.RecordLabelsRequest) -> pb.RecordLabelsResponse:
        """Record labels; they are on disk before this returns."""
        _check_count("labels", len(request.labels), MAX_LABELS)
        recorded = await record_labels(self._feedback, [(each.token, each.label) for each in request.labels])
        results = [to_label_result(result, f"labels[{index}]") for index, result in enumerate(recorded)]
        return pb.RecordLabelsResponse(results=results)

    async def list_models(self) -> pb.ListModelsResponse:
        """All model versions, served or not."""
        return pb.ListModelsResponse(models=[self._to_model(status) for status in await self._models.statuses()])

    def manifest(self, resource: str) -> Manifest:
        """The manifest of a served version; raises ApiError if it is not served."""
        return self._classification.find(resource).manifest

    def report(self, resource: str) -> Path | None:
        """The file of a served version's training report; None if it has none. Raises ApiError if it is not served."""
        report = self._classification.find(resource).report
        return report if report.is_file() else None

    def _to_model(self, status: VersionStatus) -> pb.Model:
        repository, classification = self._models.repository, self._classification
        share = repository.shadow_share(status.version)
        message = to_model(status, share, primary=repository.is_primary(status.version))
        if model := status.model:
            message.max_views = classification.max_views
            message.default_views = classification.default_views(model.manifest, adaptive=False)
            message.adaptive_views = classification.default_views(model.manifest, adaptive=True)
        return message

    def _check(self, request: pb.ClassifyRequest | pb.ClassifyStreamRequest) -> ClassifySpec:
        model = self._classification.find(request.model)
        views = request.views if request.HasField("views") else None
        top_k = request.top_k if request.HasField("top_k") else None
        return self._classification.check(model, views, top_k, request.adaptive)


def _check_count(field: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        message = f"{field} has {count:,} entries; a request takes 1 to {most:,}"
        raise invalid("COUNT_OUT_OF_RANGE", message, field, most=str(most))
