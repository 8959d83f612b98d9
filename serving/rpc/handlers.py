"""Method handlers that interceptors wrap: one function for the four kinds of gRPC methods."""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

Handler = Any  # grpc.RpcMethodHandler, which has no types
Behaviour = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]
"""A coroutine function: returns one response, or writes the responses of a stream itself."""

_MAKE_HANDLER = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def behaviour_of(handler: Handler) -> Behaviour:
    """The function that answers the calls; a handler has exactly one, whatever its kind."""
    behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return _write_all(behaviour) if inspect.isasyncgenfunction(behaviour) else behaviour


def wrap_handler(
    handler: Handler, wrap: Callable[[Behaviour], Behaviour], request_deserializer: Callable[[bytes], Any] | None
) -> Handler:
    """A handler of the same kind, whose behaviour is wrapped."""
    make = _MAKE_HANDLER[handler.request_streaming, handler.response_streaming]
    return make(wrap(behaviour_of(handler)), request_deserializer, handler.response_serializer)


def _write_all(behaviour: Callable[..., AsyncGenerator[Any, None]]) -> Behaviour:
    """The coroutine function that writes what an async generator function yields."""

    async def call(request: Any, context: grpc.aio.ServicerContext) -> None:
        async with aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    return call
