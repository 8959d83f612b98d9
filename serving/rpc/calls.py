"""The interceptor that all calls pass: it identifies, authenticates and observes them, and parses their requests.

One interceptor does all of this, and one coroutine wraps each method, since every step costs the event loop time for
each request.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import grpc

from serving.api.access import NEEDS, AccessControl
from serving.api.errors import ApiError
from serving.api.status import to_status
from serving.context import CURRENT_CALL, CURRENT_CLIENT, Call, RoleMissing, choose_request_id
from serving.observability.observers import CallObserver
from serving.rpc.draining import Drain
from serving.rpc.handlers import Behaviour, Handler, wrap_handler
from serving.rpc.messages import make_parser
from serving.security.clients import RegisteredClient
from serving.system.logs import RateLimitedLogger

REQUEST_ID_KEY = "x-request-id"
LARGE_MESSAGE_BYTES = 4 * 2**20
"""Larger requests are parsed in a thread, since that takes milliseconds."""

UNKNOWN = "unknown"
"""The name of all methods that do not exist, since clients can invent any number of them."""

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

_logger = RateLimitedLogger(logging.getLogger(__name__), logging.WARNING)


class _Arrival(NamedTuple):
    """Facts of a call before its request is read."""

    metadata: dict[str, str | bytes]
    client: RegisteredClient | None
    """The client that the call's token names."""
    was_read: Callable[[], object]
    """Is called when the request was read, possibly in another task than the one that found the handler."""


_ARRIVAL: ContextVar[_Arrival] = ContextVar("arrival")


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Sets `CURRENT_CALL` and `CURRENT_CLIENT` for each call, and tells the observers of it.

    Calls that the client's roles do not allow are rejected before their request is read. An exception of a method ends
    the call with its status and details.

    Args:
        observers: are notified of every call.
        access: finds the client of a call.
    """

    def __init__(self, observers: Sequence[CallObserver], access: AccessControl) -> None:
        self._observers = observers
        self._access = access
        self._handlers: dict[str, Handler] = {}
        self._large = asyncio.Lock()
        self.drain = Drain()
        """Holds calls back during a shutdown."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        """The method's handler, wrapped; None if there is no such method."""
        method = details.method
        if self.drain.holding:
            await self.drain.wait(method)
        metadata, authorization = {}, []
        for key, value in details.invocation_metadata or ():
            metadata[key] = value
            if key == "authorization":
                authorization.append(value)
        client = None
        try:
            client = self._access.find_by_token(method, authorization)
        except (ApiError, RoleMissing) as error:
            handler = self._rejecting(method, error)
        else:
            handler = self._handlers.get(method) or await self._find(method, continuation, details)
            if handler is None:
                self._count_unread(Call(UNKNOWN, ""), {}, "UNIMPLEMENTED")
                return None
        task = asyncio.current_task()  # which gRPC ends without calling the handler if it cannot read the request
        assert task is not None
        on_unread = partial(self._ended_unread, method.lstrip("/"), metadata)
        task.add_done_callback(on_unread)
        _ARRIVAL.set(_Arrival(metadata, client, partial(task.remove_done_callback, on_unread)))
        return handler

    async def _find(
        self, method: str, continuation: Callable[[Any], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(details)
        if handler is None:
            return None
        parse = make_parser(handler)
        if handler.request_streaming:  # gRPC deserializes when the method reads the next request
            wrapped = wrap_handler(handler, lambda behaviour: self._steps(method, behaviour, None), parse)
        else:
            wrapped = wrap_handler(handler, lambda behaviour: self._steps(method, behaviour, parse), None)
        self._handlers[method] = wrapped
        return wrapped

    def _rejecting(self, method: str, error: Exception) -> Handler:
        """A handler that ends the call with an error. A stream handler for every method, so that no request is read."""

        async def reject(requests: Any, context: grpc.aio.ServicerContext) -> None:
            raise error

        return grpc.stream_stream_rpc_method_handler(self._steps(method, reject, None, identify=False))

    def _steps(
        self, method: str, behaviour: Behaviour, parse: Callable[[bytes], Any] | None, *, identify: bool = True
    ) -> Behaviour:
        """The steps of a call around its method."""
        name = method.lstrip("/") if method in NEEDS else UNKNOWN

        async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
            arrival = _ARRIVAL.get()
            call = self._begin(name, arrival, context)
            raised: BaseException | None = None
            try:
                if identify:
                    self._identify(method, arrival.client, context)
                if parse:
                    large = len(request) > LARGE_MESSAGE_BYTES
                    request = await self._parse_large(parse, request) if large else parse(request)
                return await behaviour(request, context)
            except grpc.aio.AbortError as error:
                raised = error
                raise
            except Exception as error:
                return _set_error_status(error, context)
            except BaseException as error:
                raised = error
                raise
            finally:
                self._end(call, context, raised)

        return answer

    async def _parse_large(self, parse: Callable[[bytes], Any], content: bytes) -> Any:
        """Parse in a thread, one message at a time, so that other calls get the event loop in between."""
        async with self._large:
            return await asyncio.to_thread(parse, content)

    def _begin(self, name: str, arrival: _Arrival, context: grpc.aio.ServicerContext) -> Call:
        arrival.was_read()
        call = Call(name, choose_request_id(arrival.metadata.get(REQUEST_ID_KEY)))
        CURRENT_CALL.set(call)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        for observer in self._observers:
            observer.began(call, arrival.metadata)
        return call

    def _identify(self, method: str, client: RegisteredClient | None, context: grpc.aio.ServicerContext) -> None:
        """Set `CURRENT_CLIENT`; raises ApiError or RoleMissing."""
        names = _certificate_names(context) if self._access.client_certificates and client is None else []
        CURRENT_CLIENT.set(self._access.identify(method, client, context.peer(), names))

    def _end(self, call: Call, context: grpc.aio.ServicerContext, raised: BaseException | None) -> None:
        if not self._observers:
            return
        code = context.code()  # a number, a grpc.StatusCode, or None if no status was set
        if isinstance(raised, asyncio.CancelledError):
            remaining = context.time_remaining()
            name = "CANCELLED" if remaining is None or remaining > 0 else "DEADLINE_EXCEEDED"
        elif isinstance(code, grpc.StatusCode):
            name = code.name
        else:
            name = _CODES.get(code or 0, grpc.StatusCode.UNKNOWN).name
        seconds = call.elapsed_s()
        for observer in self._observers:
            observer.ended(call, name, seconds)

    def _ended_unread(self, name: str, metadata: dict[str, str | bytes], task: asyncio.Task[Any]) -> None:
        _logger.log(
            f"a call of {name} ended before its request was read: it is larger than --max-message-mib allows, which "
            "clients see as RESOURCE_EXHAUSTED, or the client left"
        )
        self._count_unread(Call(name, choose_request_id(metadata.get(REQUEST_ID_KEY))), metadata, "CANCELLED")

    def _count_unread(self, call: Call, metadata: dict[str, str | bytes], code: str) -> None:
        for observer in self._observers:
            observer.began(call, metadata)
            observer.ended(call, code, 0.0)


def _set_error_status(error: Exception, context: grpc.aio.ServicerContext) -> None:
    """Give the call the error's status and details, which are sent when its handler returns.

    `abort` takes longer than everything else that a rejection needs, which counts under overload.
    """
    status = to_status(error)
    details = ("grpc-status-details-bin", status.SerializeToString())
    context.set_trailing_metadata((*(context.trailing_metadata() or ()), details))
    context.set_code(_CODES[status.code])
    context.set_details(status.message)


def _certificate_names(context: grpc.aio.ServicerContext) -> list[str]:
    """The common name, then the alternative names, of the client's certificate."""
    properties = context.auth_context()
    names = [*properties.get("x509_common_name", ()), *properties.get("x509_subject_alternative_name", ())]
    return [name.decode("utf-8", errors="replace") for name in names]
