"""Pictures, tokens and labels in; typed answers of a pawserve server out, or a ClientError that says why not."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    MAX_MESSAGE_BYTES,
    Credentials,
    channel_options,
    open_channel,
    to_target,
)
from serving.client.event_loop import iterate_in_thread
from serving.client.messages import (
    Classified,
    ClassifyOptions,
    ClientError,
    Prediction,
    StreamResult,
    classify_request,
    label_request,
    to_classified,
    to_client_error,
    to_recorded,
    watch_request,
)
from serving.client.retries import Attempts, Retry
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.system.network import DEFAULT_ADDRESS

__all__ = [
    "DEFAULT_ADDRESS",
    "DEFAULT_TIMEOUT_S",
    "MAX_MESSAGE_BYTES",
    "StreamResult",
    "Classified",
    "Client",
    "ClientError",
    "Prediction",
    "Retry",
]


class Client:
    """Connections to one server, or to several by turns; they are made at the first call, and again when they broke.

    Every method raises ClientError when the call fails as a whole. Calls that fail because the server is not there, or
    has too much to do, are tried again as `retry` says; in any case they end within `timeout_s` seconds.

    Args:
        address: HOST:PORT; several IP addresses with commas between them; or any name of gRPC's, such as
            dns:///pawserve:50051.
        timeout_s: for each call, retries included.
        retry: how often, and after how long.

    Raises:
        ValueError: if several addresses cannot be used together.
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
        target = to_target(address)
        self._channel = open_channel(target, channel_options(target), credentials)
        self._stub = pb_grpc.ClassifierStub(self._channel)  # type: ignore[no-untyped-call]
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connections, and the calls on them."""
        self._channel.close()

    def classify(
        self,
        images: Sequence[bytes],
        *,
        model: str = "",
        views: int | None = None,
        top_k: int | None = None,
        adaptive: bool = False,
        labels: Sequence[str] | None = None,
    ) -> Classified:
        """Classify encoded pictures.

        Args:
            images: 1 to 64 encoded pictures.
            model: "models/NAME" or "models/NAME/versions/VERSION"; empty for the only model.
            views: how many views of each to average over; None for the server's default.
            top_k: how many classes to return for each; None for all.
            adaptive: look at one view first, and at the others only where it leaves doubt.
            labels: the true class of each picture where it is known, "" where not. So that none is counted twice, such
                a call is not tried again when its connection breaks.
        """
        options = ClassifyOptions(model=model, views=views, top_k=top_k, adaptive=adaptive)
        request = classify_request(options, images, labels)
        return to_classified(self._call(self._stub.Classify, request, repeatable=not any(labels or ())))

    def classify_many(
        self,
        images: Iterable[bytes],
        *,
        model: str = "",
        views: int | None = None,
        top_k: int | None = None,
        adaptive: bool = False,
        in_flight: int = IN_FLIGHT,
        streams: int = 1,
    ) -> Iterator[StreamResult]:
        """Classify any number of encoded pictures as fast as the server can, by ClassifyStream.

        Pictures are taken from `images` (in another thread) as there is room for them. Answers come as soon as they are
        known, so not always in order: `index` says whose each is. A picture that fails has its own ClientError.
        Connections that break are made again, and what had no answer is sent again. Leave the iterator early to end
        the streams.

        Args:
            images: encoded pictures; a generator may read them as they are asked for.
            in_flight: how many may be without an answer at a time; half a gigabyte of them at most.
            streams: how many streams share them; with several servers, give at least one for each.
            model, views, top_k, adaptive: as for `classify`.

        Raises:
            ClientError: if a request cannot be answered, retries do not help before the first answer, or no answer
                comes for `timeout_s` seconds.
        """
        # here, since it builds on this module
        from serving.client.async_client import AsyncClient

        options = ClassifyOptions(model=model, views=views, top_k=top_k, adaptive=adaptive)
        return iterate_in_thread(
            lambda: AsyncClient(
                self.address, timeout_s=self._timeout_s, retry=self._retry, credentials=self._credentials
            ),
            lambda client: client.many(images, options, in_flight=in_flight, streams=streams),
        )

    def record_labels(self, labels: Sequence[tuple[str, str]]) -> list[pb.RecordedLabel | ClientError]:
        """Record the truth: pairs of a prediction's token and the true class; in their order, how each was recorded."""
        return to_recorded(self._call(self._stub.RecordLabels, label_request(labels)))

    def statistics(
        self, model: str = "", *, start: datetime | None = None, end: datetime | None = None
    ) -> list[pb.ModelStatistics]:
        """What was predicted against what was true, for each version with predictions or labels.

        Args:
            model: "models/NAME" or "models/NAME/versions/VERSION"; empty for all.
            start: only of predictions made then or later; a time with its zone.
            end: only of predictions made before.
        """
        request = pb.GetStatisticsRequest(model=model, start_time=start, end_time=end)
        return list(self._call(self._stub.GetStatistics, request).models)

    def watch_statistics(self, model: str = "", *, min_interval_s: float = 1.0) -> Iterator[list[pb.ModelStatistics]]:
        """The same at once, and whenever it has changed, no more often than told; ends when the server stops."""
        call = self._stub.WatchStatistics(watch_request(model, min_interval_s))
        try:
            for response in call:
                yield list(response.models)
        except grpc.RpcError as error:
            raise to_client_error(error, self.address) from error
        finally:
            call.cancel()

    def list_models(self) -> list[pb.Model]:
        """The versions that are served."""
        return list(self._call(self._stub.ListModels, pb.ListModelsRequest()).models)

    def health(self, service: str = "") -> str:
        """SERVING or NOT_SERVING, of one service or of the server as a whole."""
        response = self._call(self._health.Check, health_pb2.HealthCheckRequest(service=service))
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    def _call(self, method: Callable[..., Any], request: Message, *, repeatable: bool = True) -> Any:
        attempts = Attempts(self._retry, self._timeout_s)
        while True:
            try:
                return method(request, timeout=attempts.remaining_s())
            except grpc.RpcError as error:
                failure = to_client_error(error, self.address)
                delay_s = attempts.delay_after(failure, repeatable=repeatable)
                if delay_s is None:
                    raise failure from error
            time.sleep(delay_s)
