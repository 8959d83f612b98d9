"""An encoded request in; whether it has far more fields, or numbers, than any request means, out.

Two bytes can be an empty entry of a repeated field, and become a hundred bytes in memory; each byte of a packed field
can be a number, and become eight. So a request of 32 MiB becomes gigabytes, before anybody can count its entries.
Encoding: https://protobuf.dev/programming-guides/encoding/

Every gRPC call in, its requests as bytes; the same call out, its requests as messages, or refused if they are none.

gRPC itself would answer UNKNOWN to bytes that are no message of the method's, and write a stack trace to the log: for
anybody to fill it with.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import cache, lru_cache
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from serving.rpc.errors import ApiError, set_error_status, to_api_error
from serving.system.memory import is_short_of

MOST_FIELDS = 50_000
"""More than the largest request has, of ten thousand labels."""
PACKED_BYTES_A_FIELD = 100
"""Packed numbers count as fields of so many bytes: the largest request has a million, of two bytes each at most."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def has_too_many_fields(content: bytes, message: Descriptor) -> bool:
    """Whether a message, with those in it that have repeated fields, has more than MOST_FIELDS, or five megabytes of
    packed numbers. What is no message may be either: whoever reads it finds out."""
    if len(content) <= 2 * MOST_FIELDS:  # no field has fewer bytes than two
        return False
    return _left(content, 0, len(content), message, MOST_FIELDS) < 0


def _left(content: bytes, at: int, end: int, message: Descriptor, left: int) -> int:
    """How many fields may still come, after those of a message that stands there; negative if there were too many."""
    inner, packed = _with_repeated_fields(message), _packed_fields(message)
    while at < end and left >= 0:
        left -= 1
        tag, at = _varint(content, at, end)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(content, at, end)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        elif kind == _BYTES:
            length, at = _varint(content, at, end)
            if tag >> 3 in inner:
                left = _left(content, at, min(end, at + length), inner[tag >> 3], left)
            elif tag >> 3 in packed:
                left -= min(end - at, length) // PACKED_BYTES_A_FIELD
            at += length
    return left


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while at < end:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            break
        shift += 7
    return value, at


@cache
def _with_repeated_fields(message: Descriptor) -> Mapping[int, Descriptor]:
    """The fields of a message, by number, that hold messages with repeated fields of their own."""
    return {
        field.number: field.message_type
        for field in message.fields
        if field.message_type and any(each.is_repeated for each in field.message_type.fields)
    }


@cache
def _packed_fields(message: Descriptor) -> frozenset[int]:
    """The numbers of the fields that hold many numbers as one run of bytes."""
    texts = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE)
    return frozenset(field.number for field in message.fields if field.is_repeated and field.type not in texts)


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
            return set_error_status(error, context)

    async def answers(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        try:
            async with aclosing(behaviour(single(request), context)) as responses:
                async for response in responses:
                    yield response
        except ApiError as error:
            set_error_status(error, context)

    make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
    wrapped = answers if inspect.isasyncgenfunction(behaviour) else answer
    return make(wrapped, read if handler.request_streaming else None, handler.response_serializer)


def _same(requests: Any) -> Any:
    return requests
