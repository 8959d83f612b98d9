"""API errors as google.rpc.Status with its details.

Every status carries an ErrorInfo with the reason and the domain "pawserve". It carries a BadRequest if the error has a
field, and a RetryInfo if it has a retry hint.
"""

from collections.abc import Mapping
from functools import cache

from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from serving.api.errors import ApiError, Code, to_api_error

DOMAIN = "pawserve"


def to_status(error: Exception, field: str = "") -> status_pb2.Status:
    """The google.rpc.Status of an error; `field` is the field of the request that it is about, if any."""
    failure = to_api_error(error, field)
    details = [_pack(_error_info(failure.reason, failure.metadata)) if failure.metadata else _packed(failure.reason)]
    if failure.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=failure.field, description=failure.message)
        details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    if failure.retry_after_s is not None:
        seconds, nanos = divmod(int(failure.retry_after_s * 1e9), 1_000_000_000)
        delay = Duration(seconds=seconds, nanos=nanos)
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=failure.code, message=failure.message, details=details)


def from_status(status: status_pb2.Status) -> ApiError:
    """The error that `to_status` has written."""
    info, request, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        any(detail.Unpack(message) for message in (info, request, retry))
    return ApiError(
        Code(status.code),
        info.reason,
        status.message,
        field=request.field_violations[0].field if request.field_violations else "",
        retry_after_s=retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None,
        metadata=dict(info.metadata),
    )


def _error_info(reason: str, metadata: Mapping[str, str]) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


@cache  # there are few reasons, and an overloaded server rejects many requests
def _packed(reason: str) -> any_pb2.Any:
    return _pack(_error_info(reason, {}))


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
