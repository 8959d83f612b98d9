"""Pictures, tokens and labels in; typed answers of a pawserve server out, or a ClientError that says why not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.channel import ANONYMOUS, Credentials, open_channel
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 30.0
MAX_MESSAGE_BYTES = 32 * 2**20

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class ClientError(Exception):
    """An error of the server's, or on the way to it."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        """The canonical status code."""
        self.reason = reason
        """The server's stable reason, such as NOT_AN_IMAGE; empty if the error did not come from the server."""
        self.message = message
        self.retry_after_s = retry_after_s
        """After how many seconds the server wants to be asked again; None if it did not say so."""


@dataclass(frozen=True)
class Prediction:
    """What a picture shows."""

    classes: tuple[tuple[str, float], ...]
    """Class names and their probabilities, most probable first."""
    token: str
    """What `record_labels` wants to see when the truth is known."""
    views: int
    """How many views were averaged."""


@dataclass(frozen=True)
class Classified:
    """The answer to one request."""

    model: str
    """The version that answered: models/NAME/versions/VERSION."""
    results: tuple[Prediction | ClientError, ...]
    """One for each picture, in their order."""


class Client:
    """A connection to one server; it is made at the first call, and again when it broke.

    Every method raises ClientError when the call fails as a whole; after `timeout_s` seconds each of them does.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        credentials: Credentials = ANONYMOUS,
    ) -> None:
        self.address = address
        self._timeout_s = timeout_s
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),  # the server says what is too large for it
        ]
        self._channel = open_channel(address, options, credentials)
        self._stub = pb_grpc.ClassifierStub(self._channel)  # type: ignore[no-untyped-call]
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and the calls on it."""
        self._channel.close()

    def classify(
        self,
        images: Sequence[bytes],
        *,
        model: str = "",
        views: int | None = None,
        top_k: int | None = None,
        labels: Sequence[str] | None = None,
        adaptive: bool = False,
    ) -> Classified:
        """Classify encoded pictures.

        Args:
            images: 1 to 64 encoded pictures.
            model: "models/NAME" or "models/NAME/versions/VERSION"; empty for the only model.
            views: how many views of each to average over; None for the server's default.
            top_k: how many classes to return for each; None for all.
            labels: the true class of each picture where it is known, "" where not.
            adaptive: look at one view, and at the others (`views`, or 5 in all) only where the answer is uncertain.
        """
        labels = labels or [""] * len(images)
        inputs = [pb.ImageInput(content=image, label=label) for image, label in zip(images, labels, strict=True)]
        request = pb.ClassifyRequest(model=model, images=inputs, views=views, top_k=top_k, adaptive=adaptive)
        response = self._call(self._stub.Classify, request)
        return Classified(response.model, tuple(map(_to_result, response.results)))

    def record_labels(self, labels: Sequence[tuple[str, str]]) -> list[pb.RecordedLabel | ClientError]:
        """Record the truth: pairs of a prediction's token and the true class; in their order, how each was recorded."""
        inputs = [pb.LabelInput(token=token, label=label) for token, label in labels]
        response = self._call(self._stub.RecordLabels, pb.RecordLabelsRequest(labels=inputs))
        return [
            result.recorded if result.HasField("recorded") else _from_status(result.error)
            for result in response.results
        ]

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
        request = pb.WatchStatisticsRequest(model=model, min_interval=timedelta(seconds=min_interval_s))
        call = self._stub.WatchStatistics(request)
        try:
            for response in call:
                yield list(response.models)
        except grpc.RpcError as error:
            raise _from_rpc_error(error, self.address) from error
        finally:
            call.cancel()

    def list_models(self) -> list[pb.Model]:
        """The versions that are served."""
        return list(self._call(self._stub.ListModels, pb.ListModelsRequest()).models)

    def health(self, service: str = "") -> str:
        """SERVING or NOT_SERVING, of one service or of the server as a whole."""
        response = self._call(self._health.Check, health_pb2.HealthCheckRequest(service=service))
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    def _call(self, method: Callable[..., Any], request: Message) -> Any:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise _from_rpc_error(error, self.address) from error


def _to_result(result: pb.ImageResult) -> Prediction | ClientError:
    if result.HasField("error"):
        return _from_status(result.error)
    prediction = result.prediction
    classes = tuple((entry.label, entry.probability) for entry in prediction.classes)
    return Prediction(classes, prediction.token, prediction.views)


def _from_rpc_error(error: grpc.RpcError, address: str) -> ClientError:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            try:
                return _from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    code = error.code()
    if code == grpc.StatusCode.UNAVAILABLE:
        # gRPC tells the whole way that the error came; its last part is the cause
        return ClientError(code, "", f"no pawserve answers at {address} ({error.details().rpartition(': ')[2]})")
    return ClientError(code, "", f"{code.name}: {error.details()}")


def _from_status(status: status_pb2.Status) -> ClientError:
    reason, retry_after_s = "", None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.reason
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return ClientError(code, reason, status.message, retry_after_s)
