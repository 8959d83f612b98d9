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
    ClassifyOptions,
    ClientError,
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
    """Connections to one server, or to several in rotation, made at the first call and again after they broke.

    Make and use it in one event loop. Every method raises ClientError when its call as a whole fails, and ValueError
    once the client is closed. Calls that fail because the server is unavailable or overloaded are tried again as
    `retry` says; they end within `timeout_s` seconds in any case.

    Args:
        address: HOST:PORT; several IP addresses separated by commas; or any gRPC target, such as
            dns:///pawserve:50051.
        timeout_s: seconds for each call, retries included.
        retry: how often and after which delays calls are tried again.
        credentials: TLS files and token.

    Raises:
        ValueError: if several addresses cannot be used together, or the credentials cannot be used.
    """

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
    ) -> Classified:
        """Classify encoded images in one request.

        Args:
            images: 1 to 64 encoded images.
            model: "models/NAME" or "models/NAME/versions/VERSION"; empty if the server has one model.
            views: number of views of each image to average; None for the server's default.
            top_k: number of classes to return for each image; None for all.
            adaptive: evaluate one view first, and the others only if its result is uncertain.
            labels: the label of each image, "" where unknown. Such a request is not tried again when its connection
                breaks, so that no label is counted twice.
        """
        request = pb.ClassifyRequest(
            model=model,
            images=[
                pb.ImageInput(content=image, label=label)
                for image, label in zip(images, labels or [""] * len(images), strict=True)
            ],
            views=views,
            top_k=top_k,
            adaptive=adaptive,
        )
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
    ) -> AsyncGenerator[StreamResult, None]:
        """Classify any number of encoded images as fast as the server can, by ClassifyStream.

        Images are taken from `images` as results arrive. Results come as soon as they are known, in any order; `index`
        tells which image each belongs to. An image that fails has a ClientError as its result. Broken connections are
        made again, and images without a result are sent again. Leave the iterator early to end the streams.

        Args:
            images: encoded images. A generator may read them as they are asked for: it is iterated in a thread, unless
                it is asynchronous.
            in_flight: most images without a result at a time; their total size is at most 512 MiB.
            streams: number of streams that share the images. Use at least one for each server.
            model, views, top_k, adaptive: as for `classify`.

        Raises:
            ClientError: if the server refuses the stream, retries before the first result do not help, or no result
                arrives for `timeout_s` seconds.
        """
        options = ClassifyOptions(model=model, views=views, top_k=top_k, adaptive=adaptive)
        async with aclosing(self.batches(images, options, in_flight=in_flight, streams=streams)) as batches:
            async for batch in batches:
                for result in batch:
                    yield result

    async def batches(
        self,
        images: Iterable[bytes] | AsyncIterable[bytes],
        options: ClassifyOptions,
        *,
        in_flight: int,
        streams: int,
        max_bytes_in_flight: int = MAX_BYTES_IN_FLIGHT,
    ) -> AsyncGenerator[list[StreamResult], None]:
        """As `classify_many`, but yields all results that have arrived at a time."""
        self._check_open()
        if not self._stream_channels:
            # one channel to several servers would put all streams on the server that it reaches first
            self._stream_channels = [open_aio_channel(each, self._credentials) for each in split_target(self._target)]
        streaming = StreamingClassify(
            [pb_grpc.ClassifierStub(channel).ClassifyStream for channel in self._stream_channels],  # type: ignore[no-untyped-call]
            images,
            options,
            address=self.address,
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
        """Record labels for earlier predictions.

        Args:
            labels: pairs of a prediction's token and the correct class.

        Returns:
            For each pair, in order, what was recorded or why it was not.
        """
        request = pb.RecordLabelsRequest(labels=[pb.LabelInput(token=token, label=label) for token, label in labels])
        return to_recorded(await self._call(self._stub.RecordLabels, request))

    async def statistics(
        self, model: str = "", *, start: datetime | None = None, end: datetime | None = None
    ) -> list[pb.ModelStatistics]:
        """The confusion matrix and the rates derived from it, for each version with predictions or labels.

        Args:
            model: "models/NAME" or "models/NAME/versions/VERSION"; empty for all.
            start: only predictions made at this time or later; with a time zone.
            end: only predictions made before this time; with a time zone.
        """
        request = pb.GetStatisticsRequest(model=model, start_time=start, end_time=end)
        return list((await self._call(self._stub.GetStatistics, request)).models)

    async def watch_statistics(
        self, model: str = "", *, min_interval_s: float = 1.0
    ) -> AsyncGenerator[list[pb.ModelStatistics], None]:
        """The statistics now, and again whenever they have changed. Ends when the server stops.

        Args:
            model: as for `statistics`.
            min_interval_s: least seconds between two of them.
        """
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
        """The model versions that are served."""
        return list((await self._call(self._stub.ListModels, pb.ListModelsRequest())).models)

    async def health(self, service: str = "") -> str:
        """SERVING or NOT_SERVING, for one service or, if `service` is empty, for the server as a whole."""
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

    @contextmanager
    def _map_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise to_client_error(error, self.address) from error
        except (asyncio.CancelledError, grpc.aio.UsageError):
            if not self._closed:
                raise
            raise client_closed() from None
