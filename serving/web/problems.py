"""API errors as HTTP responses: problem details (RFC 9457) with the canonical code and the reason.

Status codes follow https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto.
"""

import json
import math
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from serving.api.errors import ApiError, Code

CONTENT_TYPE = "application/problem+json"
_STATUSES = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
_REASONS = {
    "TOO_LARGE": 413,
    "BODY_TOO_LARGE": 413,
    "UNSUPPORTED": 415,
    "CONTENT_TYPE_UNSUPPORTED": 415,
    "CONTENT_ENCODING_UNSUPPORTED": 415,
    "METHOD_NOT_ALLOWED": 405,
    "BODY_TIMEOUT": 408,
    "HOST_NOT_ALLOWED": 421,
    "OUT_OF_MEMORY": 503,
}
"""Reasons for which HTTP has a status that says more than that of their code."""


def to_problem(error: ApiError, request_id: str = "", *, repeat_as_error: bool = False) -> dict[str, Any]:
    """The problem details of an error.

    Args:
        error: the error.
        request_id: of the request; "" leaves it out.
        repeat_as_error: whether the member `error` repeats the detail, for clients of the Open Inference Protocol.
    """
    status = _REASONS.get(error.reason) or _STATUSES[error.code]
    problem: dict[str, Any] = {
        "type": f"/docs#{error.reason}",
        "title": _title(status),
        "status": status,
        "detail": error.message,
        "code": error.code.name,
        "reason": error.reason,
    }
    if error.field:
        problem["field"] = error.field
    if error.metadata:
        problem["metadata"] = dict(error.metadata)
    if error.retry_after_s is not None:
        problem["retry_after_s"] = round(error.retry_after_s, 3)
    if request_id:
        problem["request_id"] = request_id
    if repeat_as_error:
        problem["error"] = error.message
    return problem


def problem_response(error: ApiError, request_id: str = "", *, repeat_as_error: bool = False) -> Response:
    """The response for an error. With `repeat_as_error` its type is plain JSON: KServe's client reads no other."""
    problem = to_problem(error, request_id, repeat_as_error=repeat_as_error)
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if error.code is Code.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if allowed := error.metadata.get("allow"):
        headers["allow"] = allowed
    content = json.dumps(problem, ensure_ascii=False).encode()
    return Response(content, problem["status"], headers, "application/json" if repeat_as_error else CONTENT_TYPE)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request"
