"""A gRPC server that responds as a test says, for errors that a real server seldom has."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from serving.api.errors import ApiError, Code
from serving.api.status import to_status
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.waiting import LIMIT_S

MODEL = "models/colours/versions/1"
Answer = Callable[[Any, grpc.ServicerContext], Any]


def rejection(code: grpc.StatusCode, reason: str = "", retry_after_s: float | None = None) -> ApiError:
    return ApiError(Code[code.name], reason, "as the test wants it", retry_after_s=retry_after_s)


def abort(context: grpc.ServicerContext, error: ApiError) -> None:
    """End a call with an error as pawserve does; without a reason, as gRPC itself does."""
    if error.reason:
        details = to_status(error).SerializeToString()
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
    context.abort(grpc.StatusCode[error.code.name], error.message)


def predicted(content: bytes) -> pb.ImageResult:
    """A prediction whose class is the image's content."""
    classes = [pb.ClassProbability(label=content.decode(), probability=1)]
    return pb.ImageResult(prediction=pb.Prediction(classes=classes, token=f"token of {content.decode()}", views=1))


class ScriptedServer(pb_grpc.ClassifierServicer):
    """A server for one test.

    `fail` holds the errors of the next calls. Later calls run `on_classify` and are answered. Streams run `on_stream`.
    """

    def __init__(self) -> None:
        self.fail: list[ApiError] = []
        self.called_at: list[float] = []
        self.on_classify: Callable[[grpc.ServicerContext], None] = lambda context: None
        self.on_stream: Callable[[Iterator[Any], grpc.ServicerContext], Iterator[Any]] = answer_stream
        self.streams = 0
        self.recorded: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def Classify(self, request: pb.ClassifyRequest, context: grpc.ServicerContext) -> pb.ClassifyResponse:
        with self._lock:
            self.called_at.append(time.monotonic())
            error = self.fail.pop(0) if self.fail else None
        if error:
            abort(context, error)
        self.on_classify(context)
        return pb.ClassifyResponse(model=MODEL, results=[predicted(image.content) for image in request.images])

    def ClassifyStream(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        with self._lock:
            self.streams += 1
        yield from self.on_stream(requests, context)

    def RecordLabels(self, request: pb.RecordLabelsRequest, context: grpc.ServicerContext) -> pb.RecordLabelsResponse:
        with self._lock:
            self.recorded += [(label.token, label.label) for label in request.labels]
        results = [pb.LabelResult(recorded=pb.RecordedLabel(label=label.label)) for label in request.labels]
        return pb.RecordLabelsResponse(results=results)

    def WatchStatistics(self, request: pb.WatchStatisticsRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        ended = threading.Event()
        context.add_callback(ended.set)
        yield pb.WatchStatisticsResponse()
        ended.wait(LIMIT_S)

    def ListModels(self, request: pb.ListModelsRequest, context: grpc.ServicerContext) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[pb.Model(name=MODEL)])


def answer(request: pb.ClassifyStreamRequest) -> pb.ClassifyStreamResponse:
    return pb.ClassifyStreamResponse(id=request.id, model=MODEL, result=predicted(request.image.content))


def answer_stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    for request in requests:
        yield answer(request)


@contextmanager
def scripted_server(*options: tuple[str, int]) -> Iterator[tuple[ScriptedServer, str]]:
    """Run a server; yield it and its address."""
    script = ScriptedServer()
    server = grpc.server(ThreadPoolExecutor(8), options=options)
    pb_grpc.add_ClassifierServicer_to_server(script, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield script, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
