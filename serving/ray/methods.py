"""The services and interceptors of the plain server, called as Ray calls a replica: with bytes and Ray's context.

So request IDs, roles, invalid messages and error details are handled as in the plain server.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import grpc

from serving.rpc.handlers import behaviour_of

Metadata = Sequence[tuple[str, str | bytes]]


class NoMessage:
    """The response of a call that failed, of which Ray sends only the status."""

    def SerializeToString(self) -> bytes:
        """No bytes."""
        return b""


class CallContext:
    """The part of gRPC's servicer context that our services use, on top of Ray's context.

    Ray does not pass on the client's deadline; it cancels the call when the deadline has passed.
    """

    def __init__(self, ray_context: Any) -> None:
        self._ray = ray_context
        self._trailing: Metadata = ()

    def __getattr__(self, name: str) -> Any:
        """Methods that Ray's context has: invocation_metadata, peer, code, set_code and set_details."""
        return getattr(self._ray, name)

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Empty, since Ray's ingress does not ask for certificates."""
        return {}

    def time_remaining(self) -> None:
        """None, since it is unknown."""
        return

    def trailing_metadata(self) -> Metadata:
        """The trailing metadata that was set."""
        return self._trailing

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Set the trailing metadata, to which Ray adds its own request ID."""
        self._trailing = tuple(metadata)
        self._ray.set_trailing_metadata(list(metadata))


class StreamContext(CallContext):
    """The context of a call whose method reads requests or writes responses itself."""

    def __init__(self, ray_context: Any, requests: AsyncIterator[bytes] | None, parse: Callable[[bytes], Any]) -> None:
        super().__init__(ray_context)
        self._requests = requests
        self._parse = parse
        # bounded, so that the method waits for a client that reads slowly
        self.responses: asyncio.Queue[Any] = asyncio.Queue(1)

    async def read(self) -> Any:
        """The next request; EOF after the last one."""
        assert self._requests is not None
        try:
            return self._parse(await anext(self._requests))
        except StopAsyncIteration:
            return grpc.aio.EOF

    async def write(self, response: Any) -> None:
        """Send a response, once the previous one has been sent."""
        await self.responses.put(response)


class Details(NamedTuple):
    """gRPC's HandlerCallDetails, for interceptors."""

    method: str
    invocation_metadata: Metadata


class Methods:
    """The methods of services, behind interceptors.

    Args:
        add: adds the services to an object with the methods of a gRPC server.
        interceptors: the first is the outermost.
    """

    def __init__(self, add: Callable[["Methods"], None], interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
        self._handlers: dict[str, Any] = {}
        add(self)
        find: Callable[[Details], Awaitable[Any]] = self._find_handler
        for interceptor in reversed(interceptors):
            find = partial(interceptor.intercept_service, find)
        self._find = find

    def add_generic_rpc_handlers(self, handlers: Sequence[object]) -> None:
        """Called by generated code; ignored, since it also calls `add_registered_method_handlers`."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Called by generated code."""
        self._handlers.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    async def answer(self, method: str, request: bytes, ray_context: Any) -> Any:
        """The response to a call of one request; NoMessage if the call failed."""
        handler = await self._find(Details(method, ray_context.invocation_metadata()))
        response = await behaviour_of(handler)(request, CallContext(ray_context))
        return NoMessage() if response is None else response

    async def answers(
        self, method: str, requests: bytes | AsyncIterator[bytes], ray_context: Any
    ) -> AsyncIterator[Any]:
        """The responses of a streaming call, as they come."""
        handler = await self._find(Details(method, ray_context.invocation_metadata()))
        single, several = (requests, None) if isinstance(requests, bytes) else (None, requests)
        context = StreamContext(ray_context, several, handler.request_deserializer)
        running = asyncio.ensure_future(behaviour_of(handler)(single, context))
        try:
            while not running.done() or not context.responses.empty():
                response = asyncio.create_task(context.responses.get())
                try:
                    await asyncio.wait((response, running), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    response.cancel()  # no effect if it is done
                if response.done():
                    yield response.result()
            running.result()
        finally:
            running.cancel()

    async def _find_handler(self, details: Details) -> Any:
        return self._handlers[details.method]
