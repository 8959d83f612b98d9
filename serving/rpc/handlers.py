"""Method handlers that interceptors wrap: one function for the four kinds of gRPC methods."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

from serving.context import RoleMissing
from serving.rpc.api_errors import ApiError
from serving.rpc.errors import set_error_status

Handler = Any  # grpc.RpcMethodHandler, which has no types
Deserializer = Callable[[bytes], Any]
UnaryBehaviour = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]
"""A coroutine function: returns one response, or writes the responses of a stream itself."""
StreamBehaviour = Callable[[Any, grpc.aio.ServicerContext], AsyncGenerator[Any, None]]
"""An async generator function: yields the responses of a stream."""

_MAKE_HANDLER = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def behaviour_of(handler: Handler) -> Callable[..., Any]:
    """The function that answers the calls; a handler has exactly one, whatever its kind."""
    behaviour: Callable[..., Any] = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return behaviour


def wrap_handler(
    handler: Handler,
    wrap_unary: Callable[[UnaryBehaviour], UnaryBehaviour],
    wrap_stream: Callable[[StreamBehaviour], Callable[..., AsyncIterator[Any]]],
    request_deserializer: Deserializer | None,
) -> Handler:
    """A handler of the same kind, whose behaviour is wrapped by the wrapper for its kind of function."""
    behaviour = behaviour_of(handler)
    wrap: Callable[..., Any] = wrap_stream if inspect.isasyncgenfunction(behaviour) else wrap_unary
    make = _MAKE_HANDLER[handler.request_streaming, handler.response_streaming]
    return make(wrap(behaviour), request_deserializer, handler.response_serializer)


def prepare_calls(
    handler: Handler,
    prepare: Callable[[Any, grpc.aio.ServicerContext], Any],
    request_deserializer: Deserializer | None,
) -> Handler:
    """A handler that calls `prepare` first and passes on the request that this returns.

    An ApiError or RoleMissing, of `prepare` or of deserializing a later request, ends the call with its status.
    """

    def wrap_unary(behaviour: UnaryBehaviour) -> UnaryBehaviour:
        async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
            try:
                return await behaviour(prepare(request, context), context)
            except (ApiError, RoleMissing) as error:
                return set_error_status(error, context)

        return call

    def wrap_stream(behaviour: StreamBehaviour) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            try:
                async with aclosing(behaviour(prepare(request, context), context)) as responses:
                    async for response in responses:
                        yield response
            except (ApiError, RoleMissing) as error:
                set_error_status(error, context)

        return call

    return wrap_handler(handler, wrap_unary, wrap_stream, request_deserializer)
