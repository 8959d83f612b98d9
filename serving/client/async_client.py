"""The client for asyncio: as `serving.client.Client`, whose methods describe these; nothing here blocks the loop."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.client.channel import (
    ANONYMOUS,
    DEFAULT_TIMEOUT_S,
    IN_FLIGHT,
    Credentials,
    channel_options,
    open_aio_channel,
    split_target,
    to_target,
)
from serving.client.messages import (
    Classified,
    ClassifyOptions,
    ClientError,
    StreamResult,
    classify_request,
    label_request,
    stream_request,
    to_classified,
    to_client_error,
    to_recorded,
    watch_request,
)
from serving.client.retries import Attempts, Retry
from serving.client.streaming import StreamingClassify
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.system.network import DEFAULT_ADDRESS


class AsyncClient:
    """As Client, for asyncio. Made and used in one event loop."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: Retry | None = None,
        credentials: Credentials = ANONYMOUS,
    ) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._retry = retry or Retry()
        self._credentials = credentials
        self._target = to_target(address)
        self._channel = self._open(self._target)
        self._stub = pb_grpc.ClassifierStub(self._channel)  # type: ignore[no-untyped-call]
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._stream_channels: list[grpc.aio.Channel] = []  # one for each server, once there are streams

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections, and the calls on them."""
        for channel in (self._channel, *self._stream_channels):
            await channel.close()

    async def classify(
        self,
        images: Sequence[bytes],
        *,
        model: str = "",
        views: int | None = None,
        top_k: int | None = None,
        adaptive: bool = False,
        labels: Sequence[str] | None = None,
    ) -> Classified:
        """Classify 1 to 64 encoded pictures."""
        options = ClassifyOptions(model=model, views=views, top_k=top_k, adaptive=adaptive)
        request = classify_request(options, images, labels)
        return to_classified(await self._call(self._stub.Classify, request, repeatable=not any(labels or ())))

    async def classify_many(
        self,
        images: Iterable[bytes] | AsyncIterable[bytes],
        *,
        model: str = "",
        views: int | None = None,
        top_k: int | None = None,
        adaptive: bool = False,
        in_flight: int = IN_FLIGHT,
        streams: int = 1,
    ) -> AsyncIterator[StreamResult]:
        """Classify any number of encoded pictures as fast as the server can.

        A generator of pictures that is not asynchronous is iterated in a thread, so it may read files.
        """
        options = ClassifyOptions(model=model, views=views, top_k=top_k, adaptive=adaptive)
        many = self.many(images, options, in_flight=in_flight, streams=streams)
        try:
            while answers := await many.take():
                for answer in answers:
                    yield answer
        finally:
            await many.close()

    def many(
        self, images: Iterable[bytes] | AsyncIterable[bytes], options: ClassifyOptions, *, in_flight: int, streams: int
    ) -> StreamingClassify:
        """The streams under `classify_many`, whose answers are taken many at a time."""
        if not self._stream_channels:
            # a channel to several servers gives all first streams to the server that it reached first
            self._stream_channels = [self._open(target) for target in split_target(self._target)]
        stubs = map(pb_grpc.ClassifierStub, self._stream_channels)
        return StreamingClassify(
            open_streams=[stub.ClassifyStream for stub in stubs],
            to_request=lambda id_, image: stream_request(options, id_, image),
            to_error=lambda error: to_client_error(error, self.address),
            images=images,
            in_flight=in_flight,
            streams=streams,
            retry=self._retry,
            timeout_s=self._timeout_s,
        )

    async def record_labels(self, labels: Sequence[tuple[str, str]]) -> list[pb.RecordedLabel | ClientError]:
        """Record the truth: pairs of a prediction's token and the true class."""
        return to_recorded(await self._call(self._stub.RecordLabels, label_request(labels)))

    async def statistics(
        self, model: str = "", *, start: datetime | None = None, end: datetime | None = None
    ) -> list[pb.ModelStatistics]:
        """What was predicted against what was true, for each version with predictions or labels."""
        request = pb.GetStatisticsRequest(model=model, start_time=start, end_time=end)
        return list((await self._call(self._stub.GetStatistics, request)).models)

    async def watch_statistics(
        self, model: str = "", *, min_interval_s: float = 1.0
    ) -> AsyncIterator[list[pb.ModelStatistics]]:
        """The same at once, and whenever it has changed, no more often than told; ends when the server stops."""
        call = self._stub.WatchStatistics(watch_request(model, min_interval_s))
        try:
            async for response in call:
                yield list(response.models)
        except grpc.RpcError as error:
            raise to_client_error(error, self.address) from error
        finally:
            call.cancel()

    async def list_models(self) -> list[pb.Model]:
        """The versions that are served."""
        return list((await self._call(self._stub.ListModels, pb.ListModelsRequest())).models)

    async def health(self, service: str = "") -> str:
        """SERVING or NOT_SERVING, of one service or of the server as a whole."""
        response = await self._call(self._health.Check, health_pb2.HealthCheckRequest(service=service))
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    async def _call(self, method: Callable[..., Any], request: Message, *, repeatable: bool = True) -> Any:
        attempts = Attempts(self._retry, self._timeout_s)
        while True:
            try:
                return await method(request, timeout=attempts.remaining_s())
            except grpc.RpcError as error:
                failure = to_client_error(error, self.address)
                delay_s = attempts.delay_after(failure, repeatable=repeatable)
                if delay_s is None:
                    raise failure from error
            await asyncio.sleep(delay_s)

    def _open(self, target: str) -> grpc.aio.Channel:
        return open_aio_channel(target, channel_options(target), self._credentials)
