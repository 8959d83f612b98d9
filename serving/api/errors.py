"""The errors that clients see, without a protocol: a canonical code, a stable reason, a field and a retry hint.

`serving.rpc.calls` writes them as gRPC statuses. docs/api.md lists the reasons.
"""

import logging
import secrets
from collections.abc import Mapping
from enum import IntEnum

from serving.batching.requests import QueueFull
from serving.context import RoleMissing
from serving.engine.base import InferenceError
from serving.image.decode import ImageError
from serving.models.repository import ModelNotFound
from serving.statistics.feedback import LabelUnknown, VersionUnknown
from serving.statistics.store import LabelExpired, StatisticsUnavailable, WindowExpired
from serving.system.logs import RateLimitedLogger
from serving.system.times import format_time
from serving.tokens.keyring import TokenExpired
from serving.tokens.tokens import MAX_REFERENCE_BYTES, ReferenceInvalid, TokenError

MIN_RETRY_S = 0.05
RETRY_S = 1.0

logger = logging.getLogger(__name__)
_statistics_logger = RateLimitedLogger(logger, logging.ERROR)
_memory_logger = RateLimitedLogger(logger, logging.WARNING)


class Code(IntEnum):
    """Canonical codes that pawserve uses: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class ApiError(Exception):
    """An error as clients see it.

    Args:
        code: the canonical code.
        reason: a stable name of the cause, for programs.
        message: for people: what was given, what is allowed, what to do.
        field: the field of the request that caused it; empty if none did.
        retry_after_s: seconds after which the same request may succeed; None if a retry does not help.
        metadata: further facts for programs.
    """

    def __init__(
        self,
        code: Code,
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


def invalid(reason: str, message: str, field: str, **metadata: str) -> ApiError:
    """INVALID_ARGUMENT for one field."""
    return ApiError(Code.INVALID_ARGUMENT, reason, message, field=field, metadata=metadata)


def to_api_error(error: Exception, field: str = "") -> ApiError:
    """Describe an exception for clients. An unexpected one is logged, and the client gets only the ID of the log entry.

    Args:
        error: what was raised.
        field: the field of the request that the error is about, if any.
    """
    message = str(error)
    match error:
        case ApiError():
            return error
        case ImageError():
            return invalid(error.reason, message, field)
        case TokenError():
            return invalid("TOKEN_INVALID", message, field)
        case TokenExpired():
            return invalid("TOKEN_EXPIRED", message, field)
        case LabelExpired():
            return ApiError(Code.FAILED_PRECONDITION, "PREDICTION_FORGOTTEN", message, field=field)
        case LabelUnknown():
            return invalid("LABEL_UNKNOWN", message, field, classes=error.listed)
        case ReferenceInvalid():
            return invalid("REFERENCE_INVALID", message, field, most=str(MAX_REFERENCE_BYTES))
        case WindowExpired():
            since = format_time(error.labels_since_ms)
            message = f"{field} is before {since}, and single labels of earlier predictions are no longer kept; their "
            message += f"totals are: leave the window out, or begin it at {since} or later"
            metadata = {"labels_since": since}
            return ApiError(Code.OUT_OF_RANGE, "WINDOW_FORGOTTEN", message, field=field, metadata=metadata)
        case ModelNotFound() | VersionUnknown():
            return ApiError(Code.NOT_FOUND, "MODEL_NOT_FOUND", message, field=field)
        case RoleMissing():
            return ApiError(Code.PERMISSION_DENIED, "ROLE_MISSING", message, metadata={"role": error.role})
        case QueueFull(retry_after_s=None):
            return invalid("COUNT_OUT_OF_RANGE", message, field or "images")
        case QueueFull():
            assert error.retry_after_s is not None
            retry_after_s = max(MIN_RETRY_S, error.retry_after_s)
            return ApiError(Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", message, retry_after_s=retry_after_s)
        case StatisticsUnavailable():
            _statistics_logger.log(message)  # not for clients, since it names files of the server
            message = "the statistics are not available now, so nothing was recorded; try again"
            return ApiError(Code.UNAVAILABLE, "STATISTICS_UNAVAILABLE", message, retry_after_s=RETRY_S)
        case MemoryError():
            _memory_logger.log(f"out of memory: {message or 'no memory is left for details'}")
            message = "the server is out of memory for this request; try again"
            return ApiError(Code.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", message, retry_after_s=RETRY_S)
        case InferenceError():
            return ApiError(Code.INTERNAL, "ENGINE_FAILED", message)
        case TimeoutError():
            return ApiError(Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", message)
    error_id = secrets.token_hex(6)
    logger.error("error %s", error_id, exc_info=error)
    message = f"the server failed unexpectedly; its log describes the failure as error {error_id}"
    return ApiError(Code.INTERNAL, "INTERNAL", message, metadata={"error_id": error_id})
