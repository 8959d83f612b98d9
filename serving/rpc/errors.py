"""What went wrong in; a canonical status with google.rpc details out.

Every error carries an ErrorInfo with a stable reason and the domain "pawserve", a BadRequest where a field is at fault,
and a RetryInfo where a retry helps.

A method of a service in; the same method out, whose exceptions end the call with a status and its details.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, wraps
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from serving.batching.requests import QueueFull
from serving.context import RoleMissing
from serving.engine.base import InferenceError
from serving.image.decode import ImageError
from serving.models.repository import ModelNotFound
from serving.statistics.feedback import LabelUnknown, VersionUnknown
from serving.statistics.store import LabelExpired, StatisticsUnavailable
from serving.system.logs import RateLimitedLogger
from serving.tokens.keyring import TokenExpired
from serving.tokens.tokens import TokenError

DOMAIN = "pawserve"
MIN_RETRY_S = 0.05
STATISTICS_RETRY_S = 1.0
MEMORY_RETRY_S = 1.0

logger = logging.getLogger(__name__)
_statistics_trouble = RateLimitedLogger(logger, logging.ERROR)
_memory_trouble = RateLimitedLogger(logger, logging.WARNING)


class ApiError(Exception):
    """An error as callers see it: a canonical code, a stable reason, a message, and the field at fault if one is."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        *,
        field: str = "",
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s
        self.metadata = metadata or {}

    def to_status(self) -> status_pb2.Status:
        """The google.rpc.Status with its details."""
        details = (
            [_error_info(self.reason)] if not self.metadata else [_pack(_to_error_info(self.reason, self.metadata))]
        )
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message)
            details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
        if self.retry_after_s is not None:
            seconds, nanos = divmod(int(self.retry_after_s * 1e9), 1_000_000_000)
            delay = Duration(seconds=seconds, nanos=nanos)
            details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
        return status_pb2.Status(code=self.code.value[0], message=self.message, details=details)


def _to_error_info(reason: str, metadata: Mapping[str, str]) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


@cache  # reasons are few, and a server that refuses much has none of its time to spare
def _error_info(reason: str) -> any_pb2.Any:
    return _pack(_to_error_info(reason, {}))


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def invalid(reason: str, message: str, field: str, **metadata: str) -> ApiError:
    """INVALID_ARGUMENT for one field."""
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, reason, message, field=field, metadata=metadata)


def to_api_error(error: Exception, field: str = "") -> ApiError:
    """How callers see an exception. One that nobody foresaw is logged, and nothing of it is told but an ID.

    Args:
        error: what was raised.
        field: the field of the request that it is about, if one is.
    """
    code = grpc.StatusCode
    match error:
        case ApiError():
            return error
        case ImageError():
            return invalid(error.reason, str(error), field)
        case TokenError():
            return invalid("TOKEN_INVALID", str(error), field)
        case LabelExpired():
            return ApiError(code.FAILED_PRECONDITION, "PREDICTION_FORGOTTEN", str(error), field=field)
        case TokenExpired():
            return invalid("TOKEN_EXPIRED", str(error), field)
        case LabelUnknown():
            return invalid("LABEL_UNKNOWN", str(error), field, classes=error.listed)
        case ModelNotFound() | VersionUnknown():
            return ApiError(code.NOT_FOUND, "MODEL_NOT_FOUND", str(error), field=field)
        case RoleMissing():
            return ApiError(code.PERMISSION_DENIED, "ROLE_MISSING", str(error), metadata={"role": error.role})
        case QueueFull(retry_after_s=None):
            return invalid("COUNT_OUT_OF_RANGE", str(error), field or "images")
        case QueueFull():
            assert error.retry_after_s is not None
            retry_after_s = max(MIN_RETRY_S, error.retry_after_s)
            return ApiError(code.RESOURCE_EXHAUSTED, "QUEUE_FULL", str(error), retry_after_s=retry_after_s)
        case StatisticsUnavailable():
            _statistics_trouble.log(str(error))  # not told to callers: it names files of the server's
            message = "the statistics are not available now, so nothing was recorded; try again"
            return ApiError(code.UNAVAILABLE, "STATISTICS_UNAVAILABLE", message, retry_after_s=STATISTICS_RETRY_S)
        case MemoryError():
            _memory_trouble.log(f"too little memory: {str(error) or 'none was left to say what for'}")
            message = "the server has too little memory for this now; try again"
            return ApiError(code.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", message, retry_after_s=MEMORY_RETRY_S)
        case InferenceError():
            return ApiError(code.INTERNAL, "ENGINE_FAILED", str(error))
        case TimeoutError():
            return ApiError(code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", str(error))
    error_id = secrets.token_hex(6)
    logger.error("error %s", error_id, exc_info=error)
    message = f"the server failed on this; its log has it as error {error_id}"
    return ApiError(code.INTERNAL, "INTERNAL", message, metadata={"error_id": error_id})


def map_errors(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Ends the call with a status and its details when the method raises."""

    @wraps(method)
    async def answer(self: object, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await method(self, request, context)
        except Exception as error:
            return set_error_status(error, context)

    return answer


def set_error_status(error: Exception, context: grpc.aio.ServicerContext) -> None:
    """End the call with the error's status and details, once its handler returns.

    Not by `abort`, which takes longer than all else that a refusal needs: under overload that is the event loop's time.
    """
    failure = to_api_error(error)
    details = failure.to_status().SerializeToString()
    trailing = (*(context.trailing_metadata() or ()), ("grpc-status-details-bin", details))
    context.set_trailing_metadata(trailing)
    context.set_code(failure.code)
    context.set_details(failure.message)
