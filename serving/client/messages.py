"""Results and errors of the clients, and their conversion from protobuf messages."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from serving.client.channel import describe_proxy, to_target
from serving.client.credentials import Credentials
from serving.pb.pawserve.v1 import classifier_pb2 as pb

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_CONNECTION_FAILURES = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its TLS certificate is not trusted{reason}; give the authority that issued it with --tls-ca, or "
        "Credentials(ca=…)",
    ),
    (
        "Hostname Verification Check failed",
        "its TLS certificate is not for this name; use a name or address that the certificate has",
    ),
    ("WRONG_VERSION_NUMBER", "it does not use TLS; leave out --tls and --tls-ca, or tls and ca of Credentials"),
)
"""Parts of gRPC's messages of failed connections, and what they mean."""
_CLOSED = "Socket closed"
"""Part of gRPC's message if the server has closed the connection before its first response."""


class ClientError(Exception):
    """An error reported by the server, or a failure to reach it."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        """The canonical status code."""
        self.reason = reason
        """The server's stable reason, such as NOT_AN_IMAGE; empty if the error did not come from the server."""
        self.message = message
        self.retry_after_s = retry_after_s
        """Seconds after which the server asks for a retry; None if it did not say."""


class NamedImage(NamedTuple):
    """An encoded image with the client's own name of it, for `classify_many`."""

    content: bytes
    reference: str
    """At most 256 bytes in UTF-8, without control characters; "" for none. Exported with the label."""


@dataclass(frozen=True)
class Prediction:
    """The predicted classes of one image."""

    classes: tuple[tuple[str, float], ...]
    """Class names and their probabilities, most probable first."""
    token: str
    """Identifies the prediction when its label is recorded with `record_labels`."""
    views: int
    """Number of views that were averaged."""
    id: str = ""
    """The prediction's ID, 32 hexadecimal digits, as in exported labels; empty without a server."""


@dataclass(frozen=True)
class Classified:
    """The response to one request."""

    model: str
    """The version that answered: models/NAME/versions/VERSION."""
    results: tuple[Prediction | ClientError, ...]
    """One for each image, in order."""


@dataclass(frozen=True)
class StreamResult:
    """The result of one image of `classify_many`."""

    index: int
    """Position of the image in the input, from 0."""
    model: str
    """The version that answered; empty if none did."""
    result: Prediction | ClientError


def to_classified(response: pb.ClassifyResponse) -> Classified:
    """Convert the response to a request for several images."""
    return Classified(response.model, tuple(map(to_result, response.results)))


def to_recorded(response: pb.RecordLabelsResponse) -> list[pb.RecordedLabel | ClientError]:
    """Convert the response to a request that records labels."""
    return [
        result.recorded if result.HasField("recorded") else _from_status(result.error) for result in response.results
    ]


def to_result(result: pb.ImageResult) -> Prediction | ClientError:
    """Convert the result of one image."""
    if result.HasField("error"):
        return _from_status(result.error)
    prediction = result.prediction
    classes = tuple((entry.label, entry.probability) for entry in prediction.classes)
    return Prediction(classes, prediction.token, prediction.views, prediction.id)


def to_client_error(error: Any, address: str, credentials: Credentials) -> ClientError:
    """Convert the grpc.RpcError of a failed call to `address` with these credentials."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            try:
                return _from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    code, details = error.code(), error.details() or ""
    if code == grpc.StatusCode.UNAVAILABLE:
        return ClientError(
            code, "", f"no pawserve answers at {address}{_describe_failure(details, address, credentials)}"
        )
    return ClientError(code, "", f"{code.name}: {details}")


def _describe_failure(details: str, address: str, credentials: Credentials) -> str:
    """Why no connection was made, and through which proxy."""
    proxy = describe_proxy(to_target(address))
    through = f" through the proxy {proxy}; name the server in no_proxy to connect directly" if proxy else ""
    for part, meaning in _CONNECTION_FAILURES:
        if part in details:
            # "…CERTIFICATE_VERIFY_FAILED: certificate has expired: OK"
            reason = details.partition(f"{part}: ")[2].removesuffix(": OK")
            return f"{through}: {meaning.format(reason=f' ({reason})' if reason else '')}"
    if _CLOSED in details:
        return f"{through}: it closed the connection at once; {_describe_closed(credentials)}"
    # gRPC lists all layers that the error passed through; the last one is the cause
    return f" ({details.rpartition(': ')[2].rstrip(']')}){through}"


def _describe_closed(credentials: Credentials) -> str:
    """What a server that closes the connection before its first response may object to. gRPC reports no more."""
    if not credentials.encrypted:
        return "it may use TLS: give --tls-ca, or Credentials(ca=…)"
    if credentials.certificate is None:
        return "it requires a client certificate: give --tls-cert and --tls-key, or Credentials(certificate=…, key=…)"
    return (
        f"it does not accept the client certificate {credentials.certificate}: use one that is valid now and was "
        "issued by an authority of the server's --tls-client-ca"
    )


def client_closed() -> ClientError:
    """The error of calls that were in progress when the client was closed."""
    return ClientError(grpc.StatusCode.CANCELLED, "", "CANCELLED: the client was closed")


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
