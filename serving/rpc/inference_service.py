"""The service `inference.GRPCInferenceService`: a thin shell over `InferenceCalls`."""

import grpc

from serving.api.open_inference.inference import InferenceCalls
from serving.pb.inference import open_inference_pb2 as pb
from serving.pb.inference import open_inference_pb2_grpc as pb_grpc
from serving.rpc.large_requests import LargeRequest, separate
from serving.rpc.streaming import StreamProcessor


class InferenceService(pb_grpc.GRPCInferenceServiceServicer):
    """The service, as its .proto file documents it."""

    def __init__(self, calls: InferenceCalls, streams: StreamProcessor) -> None:
        self._calls = calls
        self._streams = streams

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._calls.server_ready())

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=await self._calls.model_ready(request.name, request.version))

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerMetadataResponse:
        return self._calls.server_metadata()

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelMetadataResponse:
        return self._calls.model_metadata(request.name, request.version)

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelConfigResponse:
        return self._calls.model_config(request.name, request.version)

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelStatisticsResponse:
        return self._calls.model_statistics(request.name, request.version)

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: grpc.aio.ServicerContext
    ) -> pb.RepositoryIndexResponse:
        return await self._calls.repository_index(request)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: grpc.aio.ServicerContext
    ) -> pb.RepositoryModelLoadResponse:
        return await self._calls.load(request)

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: grpc.aio.ServicerContext
    ) -> pb.RepositoryModelUnloadResponse:
        return await self._calls.unload(request)

    async def ModelInfer(
        self, request: pb.ModelInferRequest | LargeRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelInferResponse:
        message, contents = separate(request)
        return await self._calls.infer(message, context.time_remaining(), contents)

    async def ModelStreamInfer(self, requests: object, context: grpc.aio.ServicerContext) -> None:
        await self._streams.run(context, self)

    def image_bytes(self, request: pb.ModelInferRequest | LargeRequest) -> int:
        """Bytes of a request of a stream; nearly all of them are its images."""
        message, contents = separate(request)
        return int(message.ByteSize()) + sum(map(len, contents or ()))

    async def respond(
        self, request: pb.ModelInferRequest | LargeRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelStreamInferResponse:
        """The response to one request of a stream, with the error if there is one."""
        message, contents = separate(request)
        return await self._calls.infer_in_stream(message, context.time_remaining(), contents)
