"""The methods of `pawserve.v1.Classifier`."""

import grpc

from serving.models.control import ModelControl
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.rpc.api_errors import invalid
from serving.rpc.classification import ClassificationService, ClassifySpec
from serving.rpc.errors import map_errors
from serving.rpc.labels import record_labels
from serving.rpc.pawserve.conversions import to_error_result, to_label_result, to_model, to_result
from serving.rpc.pawserve.statistics import StatisticsService
from serving.rpc.streaming import StreamProcessor
from serving.statistics.feedback import Feedback
from serving.statistics.store import StatisticsStore

MAX_IMAGES = 64
MAX_LABELS = 10_000
MAX_ID_BYTES = 128


class ClassifierService(pb_grpc.ClassifierServicer):
    """The service, as its .proto file documents it."""

    def __init__(
        self,
        models: ModelControl,
        feedback: Feedback,
        store: StatisticsStore,
        classification: ClassificationService,
        streams: StreamProcessor,
    ) -> None:
        self._models = models
        self._feedback = feedback
        self._classification = classification
        self._streams = streams
        self.statistics = StatisticsService(store, classification.find)

    @map_errors
    async def Classify(self, request: pb.ClassifyRequest, context: grpc.aio.ServicerContext) -> pb.ClassifyResponse:
        spec = self._check(request)
        _check_count("images", len(request.images), MAX_IMAGES)
        contents = [image.content for image in request.images]
        labels = [image.label for image in request.images]
        results = await self._classification.classify(spec, contents, labels, context.time_remaining())
        return pb.ClassifyResponse(
            model=spec.model.manifest.resource,
            results=[to_result(spec, result, f"images[{index}]") for index, result in enumerate(results)],
        )

    @map_errors
    async def ClassifyStream(self, requests: object, context: grpc.aio.ServicerContext) -> None:
        await self._streams.run(context, self)

    def image_bytes(self, request: pb.ClassifyStreamRequest) -> int:
        """Bytes of the image of a stream's request."""
        return len(request.image.content)

    async def respond(
        self, request: pb.ClassifyStreamRequest, context: grpc.aio.ServicerContext
    ) -> pb.ClassifyStreamResponse:
        """The response to one request of a stream, with the error if there is one."""
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
            spec, result = await self._classification.classify_waiting(
                check, image.content, image.label, context.time_remaining()
            )
            response.result.CopyFrom(to_result(spec, result, "image"))
        except Exception as error:
            response.result.CopyFrom(to_error_result(error, "image"))
        return response

    @map_errors
    async def RecordLabels(
        self, request: pb.RecordLabelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.RecordLabelsResponse:
        _check_count("labels", len(request.labels), MAX_LABELS)
        recorded = await record_labels(self._feedback, [(each.token, each.label) for each in request.labels])
        results = [to_label_result(result, f"labels[{index}]") for index, result in enumerate(recorded)]
        return pb.RecordLabelsResponse(results=results)

    @map_errors
    async def GetStatistics(
        self, request: pb.GetStatisticsRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetStatisticsResponse:
        return await self.statistics.get(request)

    @map_errors
    async def WatchStatistics(self, request: pb.WatchStatisticsRequest, context: grpc.aio.ServicerContext) -> None:
        await self.statistics.watch(request, context)

    @map_errors
    async def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListModelsResponse:
        models = [to_model(status, self._classification.max_views) for status in await self._models.statuses()]
        return pb.ListModelsResponse(models=models)

    def _check(self, request: pb.ClassifyRequest | pb.ClassifyStreamRequest) -> ClassifySpec:
        model = self._classification.find(request.model)
        views = request.views if request.HasField("views") else None
        top_k = request.top_k if request.HasField("top_k") else None
        return self._classification.check(model, views, top_k, request.adaptive)


def _check_count(field: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        message = f"{field} has {count:,} entries; a request takes 1 to {most:,}"
        raise invalid("COUNT_OUT_OF_RANGE", message, field, most=str(most))
