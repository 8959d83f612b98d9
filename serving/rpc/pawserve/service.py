"""One message of ClassifyStream in; its picture's answer, by its id, out.

Protobuf in and out: what callers ask is checked here, answered by the inner layers, and written down again.
"""

import asyncio
from collections.abc import Sequence

import grpc

from serving.models.repository import ModelRepository
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.rpc.classification import ClassificationService, ClassifySpec, SignedPrediction, error_result, parse_model
from serving.rpc.errors import invalid, map_errors, to_api_error
from serving.rpc.pawserve.conversions import to_model, to_recorded_label
from serving.rpc.pawserve.statistics import StatisticsService
from serving.rpc.streaming import StreamProcessor
from serving.statistics.feedback import Feedback, LabelUnknown
from serving.statistics.store import Label, StatisticsStore, StatisticsUnavailable

MAX_ID_BYTES = 128


class ClassifyStream:
    """Answers the messages of streams."""

    def __init__(self, pictures: ClassificationService) -> None:
        self._pictures = pictures

    def size(self, request: pb.ClassifyStreamRequest) -> int:
        """Bytes of its picture."""
        return len(request.image.content)

    async def answer(
        self, request: pb.ClassifyStreamRequest, context: grpc.aio.ServicerContext
    ) -> pb.ClassifyStreamResponse:
        """Classify one picture; whatever is wrong with it is its answer."""
        answer = pb.ClassifyStreamResponse(id=request.id)
        try:
            if (length := len(request.id.encode())) > MAX_ID_BYTES:
                message = f"id has {length:,} bytes; at most {MAX_ID_BYTES} are allowed"
                raise invalid("ID_TOO_LONG", message, "id", most=str(MAX_ID_BYTES))
            result = await self._classify(request, answer, context)
        except Exception as error:
            result = error_result(error, "image.content" if answer.model else "")
        answer.result.CopyFrom(result)
        return answer

    async def _classify(
        self, request: pb.ClassifyStreamRequest, answer: pb.ClassifyStreamResponse, context: grpc.aio.ServicerContext
    ) -> pb.ImageResult:
        image = request.image

        def check() -> ClassifySpec:
            asked = self._pictures.check(request)
            answer.model = asked.model.manifest.resource
            if unknown := self._pictures.check_label(asked, image.label, "image.label"):
                raise unknown
            return asked

        asked, (outcome,) = await self._pictures.compute_waiting(check, [image.content], context.time_remaining())
        if isinstance(outcome, Exception):
            raise outcome
        issued = self._pictures.issue(asked, outcome)
        if image.label and (failure := await self._pictures.record(asked, [(issued, image.label)])):
            return failure
        return self._pictures.to_result(asked, issued)


MAX_IMAGES = 64
MAX_LABELS = 10_000


class ClassifierService(pb_grpc.ClassifierServicer):
    """pawserve.v1.Classifier, as its .proto file documents it."""

    def __init__(
        self,
        repository: ModelRepository,
        feedback: Feedback,
        store: StatisticsStore,
        pictures: ClassificationService,
        pipelines: StreamProcessor,
    ) -> None:
        self._repository = repository
        self._feedback = feedback
        self._pictures = pictures
        self._stream = ClassifyStream(pictures)
        self._pipelines = pipelines
        self.statistics = StatisticsService(store, parse_model, pictures.find)

    @map_errors
    async def Classify(self, request: pb.ClassifyRequest, context: grpc.aio.ServicerContext) -> pb.ClassifyResponse:
        asked = self._pictures.check(request)
        _check_count("images", len(request.images), MAX_IMAGES)
        results: dict[int, pb.ImageResult] = {}
        contents: dict[int, bytes] = {}
        for index, image in enumerate(request.images):
            if unknown := self._pictures.check_label(asked, image.label, f"images[{index}].label"):
                results[index] = error_result(unknown, "")
            else:
                contents[index] = image.content
        outcomes = await self._pictures.classify(asked, list(contents.values()), context.time_remaining())

        labels: dict[int, tuple[SignedPrediction, str]] = {}
        for index, outcome in zip(contents, outcomes, strict=True):
            if isinstance(outcome, Exception):
                results[index] = error_result(outcome, f"images[{index}].content")
                continue
            issued = self._pictures.issue(asked, outcome)
            results[index] = self._pictures.to_result(asked, issued)
            if label := request.images[index].label:
                labels[index] = (issued, label)
        if labels and (failure := await self._pictures.record(asked, list(labels.values()))):
            results.update(dict.fromkeys(labels, failure))
        return pb.ClassifyResponse(
            model=asked.model.manifest.resource, results=[results[index] for index in range(len(request.images))]
        )

    @map_errors
    async def ClassifyStream(self, requests: object, context: grpc.aio.ServicerContext) -> None:
        await self._pipelines.run(context, self._stream)

    @map_errors
    async def RecordLabels(
        self, request: pb.RecordLabelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.RecordLabelsResponse:
        _check_count("labels", len(request.labels), MAX_LABELS)
        # thousands of signatures take a while, and classes may have to be read from the disk
        readings = await asyncio.to_thread(self._read_labels, request.labels)
        labels = [reading for reading in readings if isinstance(reading, Label)]
        recorded = await self._feedback.record(labels) if labels else []
        previous = iter(recorded)
        results = []
        for index, reading in enumerate(readings):
            before = next(previous) if isinstance(reading, Label) else reading
            if isinstance(before, Exception):
                field = f"labels[{index}].{'label' if isinstance(before, LabelUnknown) else 'token'}"
                results.append(pb.LabelResult(error=to_api_error(before, field).to_status()))
            else:
                assert isinstance(reading, Label)
                classes = self._feedback.classes_of(reading.record)
                results.append(pb.LabelResult(recorded=to_recorded_label(reading, before, classes)))
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
        models = [to_model(status, self._pictures.max_views) for status in self._repository.statuses]
        return pb.ListModelsResponse(models=models)

    def _read_labels(self, inputs: Sequence[pb.LabelInput]) -> list[Label | Exception]:
        readings: list[Label | Exception] = []
        for input_ in inputs:
            try:
                readings.append(self._feedback.read(input_.token, input_.label))
            except StatisticsUnavailable:
                raise
            except (ValueError, LookupError) as error:
                readings.append(error)
        return readings


def _check_count(field: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        message = f"{field} has {count:,} entries; a request takes 1 to {most:,}"
        raise invalid("COUNT_OUT_OF_RANGE", message, field, most=str(most))
