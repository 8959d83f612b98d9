"""The interceptor that identifies and observes calls."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any

import grpc

from serving.context import CURRENT_CALL, Call, choose_request_id
from serving.observability.observers import CallObserver
from serving.rpc.handlers import Behaviour, Handler, wrap_handler
from serving.system.logs import RateLimitedLogger

REQUEST_ID_KEY = "x-request-id"
MAX_HANDLERS = 256

_CODE_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}
_STOP_WAITING: ContextVar[Callable[[], object]] = ContextVar("stop_waiting")
"""Called when the call's request was read, possibly in another task than the one that found its handler."""

_logger = RateLimitedLogger(logging.getLogger(__name__), logging.WARNING)


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Gives each call a request ID and tells the observers of it. Goes before all other interceptors."""

    def __init__(self, observers: Sequence[CallObserver]) -> None:
        self._observers = observers
        # bounded, since an interceptor that rejects calls may make a new handler for each of them
        self._wrap = lru_cache(MAX_HANDLERS)(self._wrap_uncached)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        """The method's handler, observed; None if there is no such method."""
        handler = await continuation(details)
        if handler is None:
            # under one name, since clients can invent any number of methods
            self._count_unread(Call("unknown", ""), {}, "UNIMPLEMENTED")
            return None
        method = details.method.lstrip("/")
        if task := asyncio.current_task():  # which gRPC ends without calling the handler if it cannot read the request
            on_unread = partial(self._ended_unread, method, dict(details.invocation_metadata or ()))
            _STOP_WAITING.set(partial(task.remove_done_callback, on_unread))
            task.add_done_callback(on_unread)
        return self._wrap(handler, method)

    def _ended_unread(self, method: str, metadata: dict[str, str | bytes], task: asyncio.Task[Any]) -> None:
        _logger.log(
            f"a call of {method} ended before its request was read: it is larger than --max-message-mib allows, which "
            "clients see as RESOURCE_EXHAUSTED, or the client left"
        )
        self._count_unread(Call(method, choose_request_id(metadata.get(REQUEST_ID_KEY))), metadata, "CANCELLED")

    def _count_unread(self, call: Call, metadata: dict[str, str | bytes], code: str) -> None:
        for observer in self._observers:
            observer.began(call, metadata)
            observer.ended(call, code, 0.0)

    def _wrap_uncached(self, handler: Handler, method: str) -> Handler:
        return wrap_handler(handler, partial(self._observe, method), handler.request_deserializer)

    def _observe(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
            call = self._begin(method, context)
            raised: BaseException | None = None
            try:
                return await behaviour(request, context)
            except BaseException as error:
                raised = error
                raise
            finally:
                self._end(call, context, raised)

        return call

    def _begin(self, method: str, context: grpc.aio.ServicerContext) -> Call:
        _STOP_WAITING.get()()
        metadata = dict(context.invocation_metadata() or ())
        call = Call(method, choose_request_id(metadata.get(REQUEST_ID_KEY)))
        CURRENT_CALL.set(call)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        for observer in self._observers:
            observer.began(call, metadata)
        return call

    def _end(self, call: Call, context: grpc.aio.ServicerContext, raised: BaseException | None) -> None:
        code = context.code()  # a number, a grpc.StatusCode, or None if no status was set
        if isinstance(raised, asyncio.CancelledError):
            remaining = context.time_remaining()
            name = "CANCELLED" if remaining is None or remaining > 0 else "DEADLINE_EXCEEDED"
        elif raised is not None and not code:
            name = "UNKNOWN"  # the status that gRPC sends for an exception
        elif isinstance(code, grpc.StatusCode):
            name = code.name
        else:
            name = _CODE_NAMES.get(code or 0, "UNKNOWN")
        seconds = call.elapsed_s()
        for observer in self._observers:
            observer.ended(call, name, seconds)
