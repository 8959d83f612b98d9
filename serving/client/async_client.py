"""The client for asyncio. It defines each call; `Client` runs these for threads."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.client.channel import open_aio_channel, split_target, to_target
from serving.client.credentials import ANONYMOUS, Credentials
from serving.client.messages import (
    Classified,
    ClientError,
    NamedImage,
    StreamResult,
    client_closed,
    to_classified,
    to_client_error,
    to_recorded,
)
from serving.client.retries import Attempts, Retry
from serving.client.streaming import MAX_BYTES_IN_FLIGHT, StreamingClassify
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.system.network import DEFAULT_ADDRESS

DEFAULT_TIMEOUT_S = 30.0
IN_FLIGHT = 64


class AsyncClient:
    """As `Client`, which documents the arguments and errors, for asyncio. Make and use it in one event loop."""

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
        self._channel = open_aio_channel(self._target, credentials)
        self._stub = pb_grpc.ClassifierStub(self._channel)  # type: ignore[no-untyped-call]
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._stream_channels: list[grpc.aio.Channel] = []  # one for each server, opened by the first stream
        self._closed = False

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Calls in progress end with ClientError, code CANCELLED."""
        self._closed = True
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
        references: Sequence[str] | None = None,
    ) -> Classified:
        """As `Client.classify`."""
        unknown = [""] * len(images)
        request = pb.ClassifyRequest(
            model=model,
            images=[
                pb.ImageInput(content=image, label=label, reference=reference)
                for image, label, reference in zip(images, labels or unknown, references or unknown, strict=True)
            ],
            views=views,
            top_k=top_k,
            adaptive=adaptive,
        )
        return to_classified(await self._call(self._stub.Classify, request, repeatable=not any(labels or ())))

    async def classify_many(
        self,
        images: Iterable[bytes | NamedImage] | AsyncIterable[bytes | NamedImage],
        *,
        model: str = "",
        views: int | None = None,
        top_k: int | None = None,
        adaptive: bool = False,
        in_flight: int = IN_FLIGHT,
        streams: int = 1,
    ) -> AsyncGenerator[StreamResult, None]:
        """As `Client.classify_many`. Asynchronous iterables are iterated in the event loop."""
        options = pb.ClassifyStreamRequest(model=model, views=views, top_k=top_k, adaptive=adaptive)
        async with aclosing(self.batches(images, options, in_flight=in_flight, streams=streams)) as batches:
            async for batch in batches:
                for result in batch:
                    yield result

    async def batches(
        self,
        images: Iterable[bytes | NamedImage] | AsyncIterable[bytes | NamedImage],
        options: pb.ClassifyStreamRequest,
        *,
        in_flight: int,
        streams: int,
        max_bytes_in_flight: int = MAX_BYTES_IN_FLIGHT,
    ) -> AsyncGenerator[list[StreamResult], None]:
        """As `classify_many`, but yields all results that have arrived at a time.

        Args:
            options: what is the same in the requests of all images.
        """
        self._check_open()
        if not self._stream_channels:
            # one channel to several servers would put all streams on the server that it reaches first
            self._stream_channels = [open_aio_channel(each, self._credentials) for each in split_target(self._target)]
        streaming = StreamingClassify(
            [pb_grpc.ClassifierStub(channel).ClassifyStream for channel in self._stream_channels],  # type: ignore[no-untyped-call]
            images,
            options,
            to_error=self._to_error,
            in_flight=in_flight,
            streams=streams,
            max_bytes_in_flight=max_bytes_in_flight,
            retry=self._retry,
            timeout_s=self._timeout_s,
        )
        try:
            while results := await streaming.take():
                yield results
        finally:
            await streaming.close()

    async def record_labels(self, labels: Sequence[tuple[str, str]]) -> list[pb.RecordedLabel | ClientError]:
        """As `Client.record_labels`."""
        request = pb.RecordLabelsRequest(labels=[pb.LabelInput(token=token, label=label) for token, label in labels])
        return to_recorded(await self._call(self._stub.RecordLabels, request))

    async def statistics(
        self, model: str = "", *, start: datetime | None = None, end: datetime | None = None
    ) -> list[pb.ModelStatistics]:
        """As `Client.statistics`."""
        request = pb.GetStatisticsRequest(model=model, start_time=start, end_time=end)
        return list((await self._call(self._stub.GetStatistics, request)).models)

    async def compare(
        self, first: str, second: str, *, start: datetime | None = None, end: datetime | None = None
    ) -> pb.GetComparisonResponse:
        """As `Client.compare`."""
        request = pb.GetComparisonRequest(first=first, second=second, start_time=start, end_time=end)
        response: pb.GetComparisonResponse = await self._call(self._stub.GetComparison, request)
        return response

    async def watch_statistics(
        self, model: str = "", *, min_interval_s: float = 1.0
    ) -> AsyncGenerator[list[pb.ModelStatistics], None]:
        """As `Client.watch_statistics`."""
        request = pb.WatchStatisticsRequest(model=model, min_interval=timedelta(seconds=min_interval_s))
        self._check_open()
        with self._map_errors():
            call = self._stub.WatchStatistics(request)
            try:
                async for response in call:
                    yield list(response.models)
            finally:
                call.cancel()

    async def list_models(self) -> list[pb.Model]:
        """As `Client.list_models`."""
        return list((await self._call(self._stub.ListModels, pb.ListModelsRequest())).models)

    async def health(self, service: str = "") -> str:
        """As `Client.health`."""
        response = await self._call(self._health.Check, health_pb2.HealthCheckRequest(service=service))
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    async def _call(self, method: Callable[..., Any], request: Message, *, repeatable: bool = True) -> Any:
        self._check_open()
        attempts = Attempts(self._retry, self._timeout_s)
        while True:
            try:
                with self._map_errors():
                    return await method(request, timeout=attempts.remaining_s())
            except ClientError as error:
                delay_s = attempts.delay_after(error, repeatable=repeatable)
                if delay_s is None:
                    raise
            await asyncio.sleep(delay_s)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the client is closed")

    def _to_error(self, error: grpc.RpcError) -> ClientError:
        return to_client_error(error, self.address, self._credentials)

    @contextmanager
    def _map_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._to_error(error) from error
        except (asyncio.CancelledError, grpc.aio.UsageError):
            if not self._closed:
                raise
            raise client_closed() from None
