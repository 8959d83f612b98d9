"""The interceptor that authenticates clients and checks their roles.

Every method needs a role; a method that is not listed here needs admin. Only health checks need no credentials: load
balancers and kubelets have no tokens, and the response reveals only whether the server is healthy.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

import grpc

from serving.context import ALL_ROLES, CURRENT_CLIENT, Role, RoleMissing, client_identity
from serving.rpc.api_errors import ApiError, Code
from serving.rpc.errors import set_error_status
from serving.rpc.handlers import Handler, prepare_calls
from serving.security.clients import ClientRegistry, RegisteredClient, load_clients
from serving.security.settings import Security
from serving.system.network import is_local
from serving.system.reloading import Reloading

OPEN = "open"
"""Needs no credentials."""
KNOWN = "known"
"""Needs credentials with any role."""

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

_TOKEN_CLIENT: ContextVar[RegisteredClient | None] = ContextVar("token_client", default=None)
"""The client that a call's token names, from the interceptor to the handler."""


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Sets `CURRENT_CLIENT` for each call, and rejects calls that the client's roles do not allow.

    Args:
        registry: the known clients; None: every client may do everything.
        client_certificates: whether TLS asks clients for certificates.
    """

    def __init__(self, registry: Reloading[ClientRegistry] | None, *, client_certificates: bool = False) -> None:
        self._registry = registry
        self._client_certificates = client_certificates
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        """The method's handler with authentication, or one that rejects the call before a request is read."""
        method = details.method
        needed = NEEDS.get(method, Role.ADMIN)
        if self._registry is not None and needed != OPEN:
            try:
                client = self._find_by_token(self._registry.get(), details)
                if client is not None:
                    _check_role(client, needed, method)
            except (ApiError, RoleMissing) as error:
                return _rejecting_handler(error)
            _TOKEN_CLIENT.set(client)
        if method not in self._handlers:
            handler = await continuation(details)
            if handler is None:  # gRPC reports the unknown method
                return None
            authenticate = partial(self._authenticate, method, needed)
            self._handlers[method] = prepare_calls(handler, authenticate, handler.request_deserializer)
        return self._handlers[method]

    def _find_by_token(self, registry: ClientRegistry, details: grpc.HandlerCallDetails) -> RegisteredClient | None:
        """The client that the call's token belongs to; None for a call without a token that may have a certificate."""
        values = [value for key, value in details.invocation_metadata if key == "authorization"]
        if not values and registry.certificates and self._client_certificates:
            return None
        if not values:
            raise _unauthenticated("CREDENTIALS_MISSING", "send a token as the metadata authorization: Bearer TOKEN")
        scheme, _, token = values[0].partition(" ")
        if len(values) > 1 or scheme.lower() != "bearer" or not token:
            message = "send the metadata authorization once, in the form Bearer TOKEN"
            raise _unauthenticated("CREDENTIALS_INVALID", message)
        client = registry.find_by_token(token.strip())
        if client is None:
            raise _unauthenticated("CREDENTIALS_INVALID", "the token is unknown or was revoked; send a valid one")
        return client

    def _authenticate(self, method: str, needed: str, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Set `CURRENT_CLIENT` and return the request.

        Raises:
            ApiError, RoleMissing: if the client's certificate does not allow the call.
        """
        client = _TOKEN_CLIENT.get()
        names = _certificate_names(context) if self._client_certificates and client is None else []
        if self._registry is None or needed == OPEN:
            client = client or RegisteredClient(names[0] if names else "", ALL_ROLES)
        elif client is None:
            client = self._registry.get().find_by_certificate(names)
            if client is None:
                message = "no client has a certificate of this name; send a token, or ask the operator to add the name"
                raise _unauthenticated("CREDENTIALS_INVALID", message)
            _check_role(client, needed, method)
        CURRENT_CLIENT.set(client_identity(context.peer(), client.name, client.roles))
        return request


def build_authentication(security: Security, listen: str) -> AuthenticationInterceptor:
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
        registry = Reloading("clients", [path], lambda: load_clients(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if registry.get().certificates and not client_certificates:
        raise ValueError(f"{path} lists clients by their certificates; that needs --tls-client-ca")
    return AuthenticationInterceptor(registry, client_certificates=client_certificates)


def _check_role(client: RegisteredClient, needed: str, method: str) -> None:
    if needed != KNOWN:
        client_identity("", client.name, client.roles).require(Role(needed), f"call {method}")


def _unauthenticated(reason: str, message: str) -> ApiError:
    return ApiError(Code.UNAUTHENTICATED, reason, message)


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
