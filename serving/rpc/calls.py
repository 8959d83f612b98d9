"""Every gRPC call in; the same call out, with a request ID, and its outcome told to whoever observes the server."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import lru_cache
from typing import Any

import grpc

from serving.context import CURRENT_CALL, Call, choose_request_id
from serving.observability.observers import CallObserver

REQUEST_ID_KEY = "x-request-id"
MAX_HANDLERS = 256

_CODES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Gives each call its ID, and tells the observers of it. Goes before all other interceptors."""

    def __init__(self, observers: Sequence[CallObserver]) -> None:
        self._observers = observers
        # bounded: an interceptor that refuses calls may make a new handler for each of them
        self._wrap = lru_cache(MAX_HANDLERS)(self._wrap_uncached)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """The method's handler, watched; None where there is no such method."""
        handler = await continuation(details)
        if handler is not None:
            return self._wrap(handler, details.method.lstrip("/"))
        for observer in self._observers:  # with one name for all, since callers can invent any number of them
            call = Call("unknown", "")
            observer.began(call, {})
            observer.ended(call, "UNIMPLEMENTED", 0.0)
        return None

    def _wrap_uncached(self, handler: Any, method: str) -> Any:
        request, response = (
            "stream" if streaming else "unary" for streaming in (handler.request_streaming, handler.response_streaming)
        )
        kind = f"{request}_{response}"
        behaviour = getattr(handler, kind)
        watch = self._watch_iterator if inspect.isasyncgenfunction(behaviour) else self._watch_coroutine
        make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(watch(behaviour, method), handler.request_deserializer, handler.response_serializer)

    def _watch_coroutine(self, behaviour: Callable[..., Awaitable[Any]], method: str) -> Callable[..., Any]:
        async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
            call = self._begin(method, context)
            raised: BaseException | None = None
            try:
                return await behaviour(request, context)
            except BaseException as error:
                raised = error
                raise
            finally:
                self._end(call, context, raised)

        return answer

    def _watch_iterator(self, behaviour: Callable[..., AsyncGenerator[Any, None]], method: str) -> Callable[..., Any]:
        async def answer(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            call = self._begin(method, context)
            raised: BaseException | None = None
            try:
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response
            except BaseException as error:
                raised = error
                raise
            finally:
                self._end(call, context, raised)

        return answer

    def _begin(self, method: str, context: grpc.aio.ServicerContext) -> Call:
        metadata = dict(context.invocation_metadata() or ())
        call = Call(method, choose_request_id(metadata.get(REQUEST_ID_KEY)))
        CURRENT_CALL.set(call)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        for observer in self._observers:
            observer.began(call, metadata)
        return call

    def _end(self, call: Call, context: grpc.aio.ServicerContext, raised: BaseException | None) -> None:
        if isinstance(raised, asyncio.CancelledError | GeneratorExit):
            remaining = context.time_remaining()
            code = "CANCELLED" if remaining is None or remaining > 0 else "DEADLINE_EXCEEDED"
        elif raised is not None and not context.code():
            code = "UNKNOWN"  # as gRPC tells callers of an exception
        else:
            code = _name(context.code())
        seconds = call.elapsed_s()
        for observer in self._observers:
            observer.ended(call, code, seconds)


def _name(code: grpc.StatusCode | int | None) -> str:
    """Of a status as gRPC's contexts have it: a number, or nothing if none was set."""
    if isinstance(code, grpc.StatusCode):
        return str(code.name)
    return _CODES.get(code or 0, "UNKNOWN")
