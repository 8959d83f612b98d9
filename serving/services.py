"""Protobuf in and out: what callers ask is checked here, answered by the inner layers, and written down again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from serving.errors import ApiError, invalid, to_api_error
from serving.feedback import Feedback, LabelUnknown
from serving.messages import to_model, to_prediction, to_recorded_label, to_statistics
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.repository import ModelNotFound, Repository, ServedModel, parse_resource
from serving.statistics import Label, StatisticsStore, StatisticsUnavailable

MAX_IMAGES = 64
MAX_LABELS = 10_000
MAX_BYTES_IN_FLIGHT = 512 * 2**20
"""Encoded pictures held at once, in bytes: the bound on views in flight says nothing about their size."""


def _answering(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Ends the call with a status and its details when the method raises."""

    @wraps(method)
    async def answer(self: "ClassifierService", request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await method(self, request, context)
        except Exception as error:
            failure = to_api_error(error)
        details = failure.to_status().SerializeToString()
        trailing = (*(context.trailing_metadata() or ()), ("grpc-status-details-bin", details))
        return await context.abort(failure.code, failure.message, trailing)

    return answer


class ClassifierService(pb_grpc.ClassifierServicer):
    """pawserve.v1.Classifier, as its .proto file documents it."""

    def __init__(
        self,
        repository: Repository,
        feedback: Feedback,
        store: StatisticsStore,
        max_views: int,
        on_recorded: Callable[[Sequence[Label]], None],
    ) -> None:
        self._repository = repository
        self._feedback = feedback
        self._store = store
        self._max_views = max_views
        self._on_recorded = on_recorded
        self._bytes_in_flight = 0

    @_answering
    async def Classify(self, request: pb.ClassifyRequest, context: grpc.aio.ServicerContext) -> pb.ClassifyResponse:
        model = self._find(request.model)
        views, top_k = self._views(request), _top_k(request)
        _check_count("images", len(request.images), MAX_IMAGES)
        results: dict[int, pb.ImageResult] = {}
        contents: dict[int, bytes] = {}
        for index, image in enumerate(request.images):
            if image.label and image.label not in model.class_index:
                unknown = LabelUnknown(image.label, model.manifest.resource, model.manifest.classes)
                results[index] = _error_result(unknown, f"images[{index}].label")
            else:
                contents[index] = image.content
        outcomes = await self._classify(model, list(contents.values()), views, context)

        labels: dict[int, Label] = {}
        for index, outcome in zip(contents, outcomes, strict=True):
            if isinstance(outcome, Exception):
                results[index] = _error_result(outcome, f"images[{index}].content")
                continue
            probabilities_K: list[float] = outcome.tolist()
            # by Python: numpy lets go of the interpreter's lock to sort, and on a busy server it takes long to return
            order_K = sorted(range(len(probabilities_K)), key=probabilities_K.__getitem__, reverse=True)
            record, token = self._feedback.issue(model.manifest, order_K[0], probabilities_K[order_K[0]])
            prediction = to_prediction(model.manifest.classes, probabilities_K, order_K[:top_k], views, token)
            results[index] = pb.ImageResult(prediction=prediction)
            if label := request.images[index].label:
                labels[index] = Label(record, model.class_index[label])
        if labels:
            try:
                await self._record(list(labels.values()))
            except StatisticsUnavailable as error:
                results.update(dict.fromkeys(labels, _error_result(error, "")))
        return pb.ClassifyResponse(
            model=model.manifest.resource, results=[results[index] for index in range(len(request.images))]
        )

    @_answering
    async def RecordLabels(
        self, request: pb.RecordLabelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.RecordLabelsResponse:
        _check_count("labels", len(request.labels), MAX_LABELS)
        # thousands of signatures take a while, and classes may have to be read from the disk
        readings = await asyncio.to_thread(self._read_labels, request.labels)
        labels = [reading for reading in readings if isinstance(reading, Label)]
        recorded = await self._record(labels) if labels else []
        previous = iter(recorded)
        results = []
        for index, reading in enumerate(readings):
            if isinstance(reading, Label):
                classes = self._feedback.classes_of(reading.record)
                results.append(pb.LabelResult(recorded=to_recorded_label(reading, next(previous), classes)))
            else:
                field = f"labels[{index}].{'label' if isinstance(reading, LabelUnknown) else 'token'}"
                results.append(pb.LabelResult(error=to_api_error(reading, field).to_status()))
        return pb.RecordLabelsResponse(results=results)

    @_answering
    async def GetStatistics(
        self, request: pb.GetStatisticsRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetStatisticsResponse:
        name, version = _parse(request.model) if request.model else (None, None)
        statistics = await asyncio.to_thread(self._store.read, name, version)
        if name is not None and not statistics:
            self._find(request.model)  # served, and not asked yet: no statistics are no error
        return pb.GetStatisticsResponse(models=map(to_statistics, statistics))

    @_answering
    async def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListModelsResponse:
        models = [to_model(model, self._max_views) for model in self._repository.models]
        return pb.ListModelsResponse(models=models)

    def _find(self, resource: str) -> ServedModel:
        if resource:
            try:
                return self._repository.find(*_parse(resource))
            except ModelNotFound as error:
                raise to_api_error(error, "model") from error
        models = self._repository.models
        if len(models) > 1:
            choices = ", ".join(model.manifest.resource for model in models)
            raise invalid("MODEL_AMBIGUOUS", f"several models are served, so name one: {choices}", "model")
        return models[0]

    def _views(self, request: pb.ClassifyRequest) -> int:
        views = request.views if request.HasField("views") else 1
        if not 1 <= views <= self._max_views:
            message = f"views is {views}; 1 to {self._max_views} are allowed"
            raise invalid("VIEWS_OUT_OF_RANGE", message, "views", max_views=str(self._max_views))
        return views

    async def _classify(
        self, model: ServedModel, contents: list[bytes], views: int, context: grpc.aio.ServicerContext
    ) -> Sequence[NDArray[np.float32] | Exception]:
        if not contents:
            return []
        size = sum(map(len, contents))
        if self._bytes_in_flight and self._bytes_in_flight + size > MAX_BYTES_IN_FLIGHT:
            message = f"pictures of {self._bytes_in_flight:,} bytes are in flight; {MAX_BYTES_IN_FLIGHT:,} may be"
            raise ApiError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", message, retry_after_s=1.0)
        self._bytes_in_flight += size
        try:
            outcomes = await model.classifier.classify(contents, views, context.time_remaining())
        finally:
            self._bytes_in_flight -= size
        for outcome in outcomes:
            if isinstance(outcome, TimeoutError):  # the deadline is the request's, not one picture's
                raise outcome
        return outcomes

    async def _record(self, labels: list[Label]) -> list[int | None]:
        previous = await asyncio.wrap_future(self._store.record(labels))
        self._on_recorded(labels)
        return previous

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


def _top_k(request: pb.ClassifyRequest) -> int | None:
    if not request.HasField("top_k"):
        return None
    if request.top_k < 1:
        raise invalid("TOP_K_OUT_OF_RANGE", f"top_k is {request.top_k}; it must be at least 1", "top_k")
    return int(request.top_k)


def _check_count(field: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        message = f"{field} has {count:,} entries; a request takes 1 to {most:,}"
        raise invalid("COUNT_OUT_OF_RANGE", message, field, most=str(most))


def _error_result(error: Exception, field: str) -> pb.ImageResult:
    return pb.ImageResult(error=to_api_error(error, field).to_status())


def _parse(resource: str) -> tuple[str, int | None]:
    try:
        return parse_resource(resource)
    except ValueError as error:
        raise invalid("MODEL_NAME_INVALID", str(error), "model") from error
