"""What callers say in, requests out; answers and errors of a server in, what callers see out. Both clients use it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from serving.pb.pawserve.v1 import classifier_pb2 as pb

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


@dataclass(frozen=True)
class StreamResult:
    """What became of one of many pictures."""

    index: int
    """Which one, counted from 0 in the order in which they were given."""
    model: str
    """The version that answered; empty if none did."""
    result: Prediction | ClientError


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    """What is asked of each picture."""

    model: str = ""
    """models/NAME or models/NAME/versions/VERSION; empty for the only model."""
    views: int | None = None
    """How many views of each to average over; None for the server's default."""
    top_k: int | None = None
    """How many classes to return for each; None for all."""
    adaptive: bool = False
    """Look at one view first, and at the others only where it leaves doubt."""


def classify_request(
    options: ClassifyOptions, images: Sequence[bytes], labels: Sequence[str] | None
) -> pb.ClassifyRequest:
    """The request for some pictures; `labels` are the true classes, "" where unknown."""
    labels = labels or [""] * len(images)
    return pb.ClassifyRequest(
        model=options.model,
        images=[pb.ImageInput(content=image, label=label) for image, label in zip(images, labels, strict=True)],
        views=options.views,
        top_k=options.top_k,
        adaptive=options.adaptive,
    )


def stream_request(options: ClassifyOptions, id_: str, image: bytes) -> pb.ClassifyStreamRequest:
    """The request for one picture of a stream."""
    return pb.ClassifyStreamRequest(
        id=id_,
        model=options.model,
        image=pb.ImageInput(content=image),
        views=options.views,
        top_k=options.top_k,
        adaptive=options.adaptive,
    )


def label_request(labels: Sequence[tuple[str, str]]) -> pb.RecordLabelsRequest:
    """The request for pairs of a token and the true class."""
    return pb.RecordLabelsRequest(labels=[pb.LabelInput(token=token, label=label) for token, label in labels])


def watch_request(model: str, min_interval_s: float) -> pb.WatchStatisticsRequest:
    """The request to be told of changes, at least so many seconds apart."""
    return pb.WatchStatisticsRequest(model=model, min_interval=timedelta(seconds=min_interval_s))


def to_classified(response: pb.ClassifyResponse) -> Classified:
    """The answer to `classify_request`."""
    return Classified(response.model, tuple(map(to_result, response.results)))


def to_recorded(response: pb.RecordLabelsResponse) -> list[pb.RecordedLabel | ClientError]:
    """The answer to `label_request`."""
    return [
        result.recorded if result.HasField("recorded") else _from_status(result.error) for result in response.results
    ]


def to_result(result: pb.ImageResult) -> Prediction | ClientError:
    """One picture's result."""
    if result.HasField("error"):
        return _from_status(result.error)
    prediction = result.prediction
    classes = tuple((entry.label, entry.probability) for entry in prediction.classes)
    return Prediction(classes, prediction.token, prediction.views)


def to_client_error(error: Any, address: str) -> ClientError:
    """A failed call; `error` is a grpc.RpcError or its asyncio counterpart."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            try:
                return _from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    code, details = error.code(), error.details() or ""
    if code == grpc.StatusCode.UNAVAILABLE:
        # gRPC tells the whole way that the error came; its last part is the cause
        return ClientError(code, "", f"no pawserve answers at {address} ({details.rpartition(': ')[2]})")
    return ClientError(code, "", f"{code.name}: {details}")


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
