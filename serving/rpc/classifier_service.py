"""The service `pawserve.v1.Classifier` over gRPC: a thin shell over `ClassifierCalls`."""

import grpc

from serving.api.pawserve.classifier import ClassifierCalls
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.rpc.large_requests import LargeRequest, separate
from serving.rpc.streaming import StreamProcessor


class ClassifierService(pb_grpc.ClassifierServicer):
    """The service, as its .proto file documents it."""

    def __init__(self, calls: ClassifierCalls, streams: StreamProcessor) -> None:
        self._calls = calls
        self._streams = streams

    async def Classify(
        self, request: pb.ClassifyRequest | LargeRequest, context: grpc.aio.ServicerContext
    ) -> pb.ClassifyResponse:
        message, contents = separate(request)
        return await self._calls.classify(message, context.time_remaining(), contents)

    async def ClassifyStream(self, requests: object, context: grpc.aio.ServicerContext) -> None:
        await self._streams.run(context, self)

    def image_bytes(self, request: pb.ClassifyStreamRequest | LargeRequest) -> int:
        """Bytes of the image of a stream's request."""
        message, contents = separate(request)
        return len(message.image.content) if contents is None else sum(map(len, contents))

    async def respond(
        self, request: pb.ClassifyStreamRequest | LargeRequest, context: grpc.aio.ServicerContext
    ) -> pb.ClassifyStreamResponse:
        """The response to one request of a stream, with the error if there is one."""
        message, contents = separate(request)
        return await self._calls.classify_one(message, context.time_remaining(), contents)

    async def RecordLabels(
        self, request: pb.RecordLabelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.RecordLabelsResponse:
        return await self._calls.record_labels(request)

    async def GetStatistics(
        self, request: pb.GetStatisticsRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetStatisticsResponse:
        return await self._calls.statistics.get(request)

    async def GetComparison(
        self, request: pb.GetComparisonRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetComparisonResponse:
        return await self._calls.comparison.get(request)

    async def WatchStatistics(self, request: pb.WatchStatisticsRequest, context: grpc.aio.ServicerContext) -> None:
        await self._calls.statistics.watch(request, context.write)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListModelsResponse:
        return await self._calls.list_models()
