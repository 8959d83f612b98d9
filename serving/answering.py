"""A method of a service in; the same method out, whose exceptions end the call with a status and its details."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import grpc

from serving.errors import to_api_error


def answering(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Ends the call with a status and its details when the method raises."""

    @wraps(method)
    async def answer(self: object, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await method(self, request, context)
        except Exception as error:
            return refuse(error, context)

    return answer


def refuse(error: Exception, context: grpc.aio.ServicerContext) -> None:
    """End the call with the error's status and details, once its handler returns.

    Not by `abort`, which takes longer than all else that a refusal needs: under overload that is the event loop's time.
    """
    failure = to_api_error(error)
    details = failure.to_status().SerializeToString()
    trailing = (*(context.trailing_metadata() or ()), ("grpc-status-details-bin", details))
    context.set_trailing_metadata(trailing)
    context.set_code(failure.code)
    context.set_details(failure.message)
