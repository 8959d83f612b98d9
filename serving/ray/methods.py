"""Calls as a Ray replica gets them in, bytes and a context of Ray's; the answers of our services, or a status, out.

The services, and the interceptors before them, are those of the plain server: request IDs, roles, messages that are
none, error details. What they ask of a call is asked of Ray's context here.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, NamedTuple

import grpc

Metadata = Sequence[tuple[str, str | bytes]]


class StatusSet(Exception):
    """The call ends with the status that was set on its context."""


class NoMessage:
    """What Ray sends where a status takes the answer's place."""

    def SerializeToString(self) -> bytes:
        """No bytes; callers see the status only."""
        return b""


class CallContext:
    """The part of gRPC's servicer context that our services use, over what Ray passes to a replica.

    Ray does not pass on when the caller's deadline is, only that it has passed: the call is cancelled then.
    """

    def __init__(self, ray_context: Any) -> None:
        self._ray = ray_context
        self._trailing: Metadata = ()

    def invocation_metadata(self) -> Metadata:
        """What the caller sent."""
        return tuple(self._ray.invocation_metadata())

    def peer(self) -> str:
        """The other end of the connection: the caller, or the proxy before Ray's replicas."""
        return str(self._ray.peer())

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Nothing: Ray's ingress asks for no certificates."""
        return {}

    def time_remaining(self) -> None:
        """None: unknown."""
        return

    def code(self) -> Any:
        """The status, if one was set."""
        return self._ray.code()

    def trailing_metadata(self) -> Metadata:
        """What was set."""
        return self._trailing

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Send this at the end; Ray adds its own request ID."""
        self._trailing = tuple(metadata)
        self._ray.set_trailing_metadata(list(metadata))

    def set_code(self, code: grpc.StatusCode) -> None:
        """End the call with this status, once its method returns."""
        self._ray.set_code(code)

    def set_details(self, details: str) -> None:
        """Say this of the status."""
        self._ray.set_details(details)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> None:
        """End the call with a status; raises StatusSet."""
        self.set_code(code)
        self.set_details(details)
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        raise StatusSet


class StreamContext(CallContext):
    """As `CallContext`, of a call whose method reads requests or writes answers itself."""

    def __init__(self, ray_context: Any, requests: AsyncIterator[bytes] | None, parse: Callable[[bytes], Any]) -> None:
        super().__init__(ray_context)
        self._requests = requests
        self._parse = parse
        self.answers: asyncio.Queue[Any] = asyncio.Queue(1)  # so that a caller who does not read holds up the method

    async def read(self) -> Any:
        """The next request; EOF after the last one."""
        assert self._requests is not None
        try:
            return self._parse(await anext(self._requests))
        except StopAsyncIteration:
            return grpc.aio.EOF

    async def write(self, answer: Any) -> None:
        """Send an answer, once the one before has gone."""
        await self.answers.put(answer)


class Details(NamedTuple):
    """What interceptors hear of a call: gRPC's HandlerCallDetails."""

    method: str
    invocation_metadata: Metadata


class Methods:
    """The methods of some services, behind interceptors.

    Args:
        add: adds the services to whatever has gRPC's way to be told of methods.
        interceptors: the first is the outermost.
    """

    def __init__(self, add: Callable[["Methods"], None], interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
        self._handlers: dict[str, Any] = {}
        add(self)
        find: Callable[[Details], Awaitable[Any]] = self._look_up
        for interceptor in reversed(interceptors):
            find = _behind(find, interceptor)
        self._find = find

    def add_generic_rpc_handlers(self, handlers: Sequence[object]) -> None:
        """What generated code calls for older servers; the other method gets the same."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """What generated code calls."""
        self._handlers.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    async def answer(self, method: str, request: bytes, ray_context: Any) -> Any:
        """The answer to a call of one request: a message, or what stands for none where the call has failed."""
        context = CallContext(ray_context)
        with suppress(StatusSet):
            behaviour = _behaviour(await self._find(Details(method, context.invocation_metadata())))
            answer = await behaviour(request, context)
            return NoMessage() if answer is None else answer
        return NoMessage()

    async def answers(
        self, method: str, requests: bytes | AsyncIterator[bytes], ray_context: Any
    ) -> AsyncIterator[Any]:
        """The answers of a call that streams, as they come."""
        details = Details(method, tuple(ray_context.invocation_metadata()))
        handler = await self._find(details)
        single, several = (requests, None) if isinstance(requests, bytes) else (None, requests)
        context = StreamContext(ray_context, several, handler.request_deserializer)
        running = asyncio.create_task(_run(_behaviour(handler), single, context))
        try:
            while not running.done() or not context.answers.empty():
                answer = asyncio.create_task(context.answers.get())
                try:
                    await asyncio.wait((answer, running), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    answer.cancel()  # which means nothing if there is one
                if answer.done():
                    yield answer.result()
            running.result()
        finally:  # the caller has gone, or all is said
            running.cancel()

    async def _look_up(self, details: Details) -> Any:
        return self._handlers[details.method]


async def _run(behaviour: Callable[..., Any], request: Any, context: StreamContext) -> None:
    """Let a method write its answers."""
    with suppress(StatusSet):
        if inspect.isasyncgenfunction(behaviour):
            async with aclosing(behaviour(request, context)) as answers:
                async for answer in answers:
                    await context.write(answer)
        else:
            await behaviour(request, context)


def _behaviour(handler: Any) -> Callable[..., Any]:
    """A handler has one behaviour, whatever its kind: one that refuses is of streams even where the method is not."""
    found: Callable[..., Any] = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return found


def _behind(
    find: Callable[[Details], Awaitable[Any]], interceptor: grpc.aio.ServerInterceptor
) -> Callable[[Details], Awaitable[Any]]:
    async def intercepted(details: Details) -> Any:
        return await interceptor.intercept_service(find, details)

    return intercepted
