"""Each call's metadata in; who calls, checked against what its method needs, out to the handlers: or a refusal.

Every method needs a role, and one that is not listed here needs admin. Only health checks are open, since load
balancers and kubelets carry no tokens, and they tell nothing but whether the server is well.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import grpc

from serving.context import ALL_ROLES, CURRENT_CLIENT, Role, RoleMissing, client_identity
from serving.rpc.errors import ApiError, set_error_status
from serving.security.clients import ClientRegistry, RegisteredClient, load_clients
from serving.security.settings import Security
from serving.system.network import is_local
from serving.system.reloading import Reloading

OPEN = "open"
"""Needs no credentials."""
KNOWN = "known"
"""Needs credentials, whatever their roles."""

_BY_SERVICE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "grpc.health.v1.Health": {OPEN: ("Check", "Watch", "List")},
    "pawserve.v1.Classifier": {
        Role.PREDICT: ("Classify", "ClassifyStream"),
        Role.LABEL: ("RecordLabels", "GetStatistics", "WatchStatistics"),
        KNOWN: ("ListModels",),
    },
    "inference.GRPCInferenceService": {
        OPEN: ("ServerLive", "ServerReady"),
        KNOWN: (
            "ModelReady",
            "ServerMetadata",
            "ModelMetadata",
            "ModelConfig",
            "ModelStatistics",
            "RepositoryIndex",
        ),
        Role.PREDICT: ("ModelInfer", "ModelStreamInfer"),
        Role.ADMIN: ("RepositoryModelLoad", "RepositoryModelUnload"),
    },
    "grpc.reflection.v1.ServerReflection": {Role.ADMIN: ("ServerReflectionInfo",)},
    "grpc.reflection.v1alpha.ServerReflection": {Role.ADMIN: ("ServerReflectionInfo",)},
}
NEEDS: Mapping[str, str] = {
    f"/{service}/{method}": need
    for service, needs in _BY_SERVICE.items()
    for need, methods in needs.items()
    for method in methods
}
"""What each method needs: OPEN, KNOWN or a role."""

_Handler = Any  # grpc.RpcMethodHandler, which has no types

_PRINCIPAL: ContextVar[RegisteredClient | None] = ContextVar("principal", default=None)


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Says who calls, and lets nobody do what their role does not allow."""

    def __init__(self, access: Reloading[ClientRegistry] | None, *, client_certificates: bool = False) -> None:
        """Check against `access`, or nothing if it is None; look at certificates if clients must show them."""
        self._access = access
        self._client_certificates = client_certificates
        self._entered: dict[str, _Handler] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[_Handler]], details: grpc.HandlerCallDetails
    ) -> _Handler:
        """The method's handler, with the caller known to it; or one that refuses before anything is read."""
        needed = NEEDS.get(details.method, Role.ADMIN)
        if self._access is not None and needed != OPEN:
            try:
                principal = self._by_token(self._access.get(), details)
                if principal is not None:
                    _check(principal, needed, details.method)
            except (ApiError, RoleMissing) as error:
                return _refusing(error)
            _PRINCIPAL.set(principal)
        entered = self._entered.get(details.method)
        if entered is None:
            handler = await continuation(details)
            if handler is None:  # no such method: gRPC says so
                return None
            entered = self._entered[details.method] = self._entering(handler, details.method, needed)
        return entered

    def _by_token(self, access: ClientRegistry, details: grpc.HandlerCallDetails) -> RegisteredClient | None:
        """Whose token the call carries; None if it carries none, and may still show a certificate."""
        values = [value for key, value in details.invocation_metadata if key == "authorization"]
        if not values and access.certificates and self._client_certificates:
            return None
        if not values:
            raise _unauthenticated("CREDENTIALS_MISSING", "send a token as the metadata authorization: Bearer TOKEN")
        scheme, _, token = values[0].partition(" ")
        if len(values) > 1 or scheme.lower() != "bearer" or not token:
            message = "the metadata authorization must stand there once, and read Bearer TOKEN"
            raise _unauthenticated("CREDENTIALS_INVALID", message)
        principal = access.by_token(token.strip())
        if principal is None:
            raise _unauthenticated("CREDENTIALS_INVALID", "nobody has this token here, or no longer")
        return principal

    def _enter(self, context: grpc.aio.ServicerContext, method: str, needed: str) -> None:
        """Make the caller known to the handler.

        Raises:
            ApiError, RoleMissing: if its certificate does not let it in.
        """
        principal = _PRINCIPAL.get()
        names = _certificate_names(context) if self._client_certificates and principal is None else []
        if self._access is None or needed == OPEN:
            principal = principal or RegisteredClient(names[0] if names else "", ALL_ROLES)
        elif principal is None:
            principal = self._access.get().by_certificate(names)
            if principal is None:
                raise _unauthenticated(
                    "CREDENTIALS_INVALID", "nobody has a certificate of this name here; send a token"
                )
            _check(principal, needed, method)
        CURRENT_CLIENT.set(client_identity(context.peer(), principal.name, principal.roles))

    def _entering(self, handler: _Handler, method: str, needed: str) -> _Handler:
        """The handler, which makes the caller known first."""
        behaviour = (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )  # a handler has exactly one

        async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
            try:
                self._enter(context, method, needed)
            except (ApiError, RoleMissing) as error:
                return set_error_status(error, context)
            return await behaviour(request, context)

        async def answers(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            try:
                self._enter(context, method, needed)
            except (ApiError, RoleMissing) as error:
                set_error_status(error, context)
                return
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response

        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        generates = inspect.isasyncgenfunction(behaviour)
        return make(answers if generates else answer, handler.request_deserializer, handler.response_serializer)


def authentication(security: Security, listen: str) -> AuthenticationInterceptor:
    """The interceptor for a server that listens on HOST:PORT.

    Raises:
        ValueError: if the file of clients cannot be used, or tokens would travel in plaintext.
    """
    client_certificates = security.tls is not None and security.tls.client_ca is not None
    path = security.clients
    if path is None:
        return AuthenticationInterceptor(None, client_certificates=client_certificates)
    if security.tls is None and not security.plaintext_tokens and not is_local(listen):
        raise ValueError(
            f"tokens for {listen} would travel in plaintext; give --tls-cert and --tls-key, listen on 127.0.0.1, "
            "or give --allow-plaintext-tokens if a proxy in front of the server encrypts"
        )
    try:
        clients = Reloading("clients", [path], lambda: load_clients(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if clients.get().certificates and not client_certificates:
        raise ValueError(f"{path} lists clients by their certificates; that needs --tls-client-ca")
    return AuthenticationInterceptor(clients, client_certificates=client_certificates)


def _check(principal: RegisteredClient, needed: str, method: str) -> None:
    if needed != KNOWN:
        client_identity("", principal.name, principal.roles).require(Role(needed), f"call {method}")


def _unauthenticated(reason: str, message: str) -> ApiError:
    return ApiError(grpc.StatusCode.UNAUTHENTICATED, reason, message)


def _refusing(error: Exception) -> _Handler:
    """A handler that refuses. It is one of streams, whatever the method is: so no request is read, however large."""

    async def answer(requests: Any, context: grpc.aio.ServicerContext) -> None:
        set_error_status(error, context)

    return grpc.stream_stream_rpc_method_handler(answer)


def _certificate_names(context: grpc.aio.ServicerContext) -> list[str]:
    """The common name, then the alternative names, of the certificate that the client showed."""
    shown = context.auth_context()
    names = [*shown.get("x509_common_name", ()), *shown.get("x509_subject_alternative_name", ())]
    return [name.decode("utf-8", errors="replace") for name in names]
