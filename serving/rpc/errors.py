"""API errors as the statuses of gRPC calls."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import grpc

from serving.api.status import to_status

_STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


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
