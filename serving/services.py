"""Protobuf in and out: what callers ask is checked here, answered by the inner layers, and written down again."""

import asyncio
from collections.abc import Sequence

import grpc

from serving.answering import answering
from serving.classify_stream import ClassifyStream
from serving.errors import invalid, to_api_error
from serving.feedback import Feedback, LabelUnknown
from serving.messages import to_model, to_recorded_label
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.pictures import Issued, PictureService, error_result, parse_model
from serving.pipeline import Pipelines
from serving.repository import Repository
from serving.statistics import Label, StatisticsStore, StatisticsUnavailable
from serving.statistics_service import StatisticsService

MAX_IMAGES = 64
MAX_LABELS = 10_000


class ClassifierService(pb_grpc.ClassifierServicer):
    """pawserve.v1.Classifier, as its .proto file documents it."""

    def __init__(
        self,
        repository: Repository,
        feedback: Feedback,
        store: StatisticsStore,
        pictures: PictureService,
        pipelines: Pipelines,
    ) -> None:
        self._repository = repository
        self._feedback = feedback
        self._pictures = pictures
        self._stream = ClassifyStream(pictures)
        self._pipelines = pipelines
        self.statistics = StatisticsService(store, parse_model, pictures.find)

    @answering
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

        labels: dict[int, tuple[Issued, str]] = {}
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

    @answering
    async def ClassifyStream(self, requests: object, context: grpc.aio.ServicerContext) -> None:
        await self._pipelines.run(context, self._stream)

    @answering
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

    @answering
    async def GetStatistics(
        self, request: pb.GetStatisticsRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetStatisticsResponse:
        return await self.statistics.get(request)

    @answering
    async def WatchStatistics(self, request: pb.WatchStatisticsRequest, context: grpc.aio.ServicerContext) -> None:
        await self.statistics.watch(request, context)

    @answering
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
