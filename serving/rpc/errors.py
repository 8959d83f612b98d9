"""API errors as gRPC statuses with google.rpc details.

Every status carries an ErrorInfo with the reason and the domain "pawserve". It carries a BadRequest if the error has a
field, and a RetryInfo if it has a retry hint.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import cache, wraps
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from serving.rpc.api_errors import to_api_error

DOMAIN = "pawserve"
_STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


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


def set_error_status(error: Exception, context: grpc.aio.ServicerContext) -> None:
    """Give the call the error's status and details, which are sent when its handler returns.

    `abort` takes longer than everything else that a rejection needs, which counts under overload.
    """
    status = to_status(error)
    details = ("grpc-status-details-bin", status.SerializeToString())
    context.set_trailing_metadata((*(context.trailing_metadata() or ()), details))
    context.set_code(_STATUS_CODES[status.code])
    context.set_details(status.message)


def map_errors(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Decorate a service's method: an exception ends the call with its status and details."""

    @wraps(method)
    async def call(self: object, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await method(self, request, context)
        except Exception as error:
            return set_error_status(error, context)

    return call


def _error_info(reason: str, metadata: Mapping[str, str]) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


@cache  # there are few reasons, and an overloaded server rejects many requests
def _packed(reason: str) -> any_pb2.Any:
    return _pack(_error_info(reason, {}))


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
