"""Every gRPC call in, its requests as bytes; the same call out, its requests as messages, or refused if they are none.

gRPC itself would answer UNKNOWN to bytes that are no message of the method's, and write a stack trace to the log: for
anybody to fill it with.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import lru_cache
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.answering import refuse
from serving.errors import ApiError, to_api_error
from serving.message_fields import MOST_FIELDS, has_too_many_fields
from serving.shortage import is_short_of

MAX_HANDLERS = 256


class MessageReader(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Reads requests. Goes after all other interceptors, which do not look at requests."""

    def __init__(self) -> None:
        self._wrap = lru_cache(MAX_HANDLERS)(_wrap)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """The method's handler, which refuses what it cannot read; None where there is no such method."""
        handler = await continuation(details)
        return handler and self._wrap(handler)


def _wrap(handler: Any) -> Any:
    request, response = (
        "stream" if streaming else "unary" for streaming in (handler.request_streaming, handler.response_streaming)
    )
    kind = f"{request}_{response}"
    behaviour = getattr(handler, kind)

    message_type: Any = getattr(handler.request_deserializer, "__self__", None)  # whose FromString it is
    descriptor = getattr(message_type, "DESCRIPTOR", None)

    def read(content: bytes) -> Any:
        if descriptor and has_too_many_fields(content, descriptor):
            message = (
                f"the {len(content):,} bytes have more than {MOST_FIELDS:,} fields, or too many packed numbers; "
                "send several smaller requests, and pixels as raw_input_contents"
            )
            raise ApiError(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID", message)
        try:
            return handler.request_deserializer(content)
        except DecodeError as error:
            if is_short_of(len(content)):
                raise to_api_error(MemoryError(f"a message of {len(content):,} bytes")) from error
            message = f"the {len(content):,} bytes are no message of this method's; use the same .proto files"
            raise ApiError(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID", message) from None

    # of a stream, gRPC reads each message when the method asks for it; a single one it would read before the call
    single = read if not handler.request_streaming else _same

    async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await behaviour(single(request), context)
        except ApiError as error:
            return refuse(error, context)

    async def answers(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        try:
            async with aclosing(behaviour(single(request), context)) as responses:
                async for response in responses:
                    yield response
        except ApiError as error:
            refuse(error, context)

    make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
    wrapped = answers if inspect.isasyncgenfunction(behaviour) else answer
    return make(wrapped, read if handler.request_streaming else None, handler.response_serializer)


def _same(requests: Any) -> Any:
    return requests
