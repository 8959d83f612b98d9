"""The interceptor that authenticates clients and checks their roles, by `AccessControl`."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import grpc

from serving.api.access import AccessControl
from serving.api.errors import ApiError
from serving.context import CURRENT_CLIENT, RoleMissing
from serving.rpc.errors import set_error_status
from serving.rpc.handlers import Handler, prepare_calls
from serving.security.clients import RegisteredClient

_TOKEN_CLIENT: ContextVar[RegisteredClient | None] = ContextVar("token_client", default=None)
"""The client that a call's token names, from the interceptor to the handler."""


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Sets `CURRENT_CLIENT` for each call, and rejects calls that the client's roles do not allow."""

    def __init__(self, access: AccessControl) -> None:
        self._access = access
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        """The method's handler with authentication, or one that rejects the call before a request is read."""
        method = details.method
        values = [value for key, value in details.invocation_metadata if key == "authorization"]
        try:
            client = self._access.find_by_token(method, values)
        except (ApiError, RoleMissing) as error:
            return _rejecting_handler(error)
        _TOKEN_CLIENT.set(client)
        if method not in self._handlers:
            handler = await continuation(details)
            if handler is None:  # gRPC reports the unknown method
                return None
            authenticate = partial(self._authenticate, method)
            self._handlers[method] = prepare_calls(handler, authenticate, handler.request_deserializer)
        return self._handlers[method]

    def _authenticate(self, method: str, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Set `CURRENT_CLIENT` and return the request; raises ApiError or RoleMissing."""
        client = _TOKEN_CLIENT.get()
        names = _certificate_names(context) if self._access.client_certificates and client is None else []
        CURRENT_CLIENT.set(self._access.identify(method, client, context.peer(), names))
        return request


def _rejecting_handler(error: Exception) -> Handler:
    """A handler that ends the call with an error. A stream handler for every method, so that no request is read."""

    async def call(requests: Any, context: grpc.aio.ServicerContext) -> None:
        set_error_status(error, context)

    return grpc.stream_stream_rpc_method_handler(call)


def _certificate_names(context: grpc.aio.ServicerContext) -> list[str]:
    """The common name, then the alternative names, of the client's certificate."""
    properties = context.auth_context()
    names = [*properties.get("x509_common_name", ()), *properties.get("x509_subject_alternative_name", ())]
    return [name.decode("utf-8", errors="replace") for name in names]
