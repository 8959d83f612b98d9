"""Which client may make which call, for all transports.

Every method needs a role; a method that is not listed here needs admin. Only health checks need no credentials: load
balancers and kubelets have no tokens, and the response reveals only whether the server is healthy.
"""

from collections.abc import Mapping, Sequence

from serving.api.errors import ApiError, Code
from serving.context import ALL_ROLES, ClientIdentity, Role, client_identity
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
        Role.LABEL: ("RecordLabels", "GetStatistics", "WatchStatistics", "GetComparison"),
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
"""Requirement of each method: OPEN, KNOWN or a role."""


class AccessControl:
    """Finds the client of a call by its token or its certificate, and checks its roles.

    Args:
        registry: the known clients; None: every client may do everything.
        client_certificates: whether TLS asks clients for certificates.
    """

    def __init__(self, registry: Reloading[ClientRegistry] | None, *, client_certificates: bool = False) -> None:
        self._registry = registry
        self.client_certificates = client_certificates

    def find_by_token(self, method: str, authorization: Sequence[str]) -> RegisteredClient | None:
        """The client that the call's token belongs to; before the request is read.

        Args:
            method: "/SERVICE/METHOD".
            authorization: the values of the metadata or header "authorization".

        Returns:
            None if the call needs no credentials, or has no token but may have a certificate: `identify` then decides.

        Raises:
            ApiError, RoleMissing: if the client may not make the call.
        """
        needed = NEEDS.get(method, Role.ADMIN)
        if self._registry is None or needed == OPEN:
            return None
        registry = self._registry.get()
        if not authorization and registry.certificates and self.client_certificates:
            return None
        if not authorization:
            raise _unauthenticated(
                "CREDENTIALS_MISSING",
                "send a token as authorization: Bearer TOKEN, in the metadata or the HTTP headers",
            )
        scheme, _, token = authorization[0].partition(" ")
        if len(authorization) > 1 or scheme.lower() != "bearer" or not token:
            message = "send authorization once, in the form Bearer TOKEN"
            raise _unauthenticated("CREDENTIALS_INVALID", message)
        client = registry.find_by_token(token.strip())
        if client is None:
            raise _unauthenticated("CREDENTIALS_INVALID", "the token is unknown or was revoked; send a valid one")
        _check_role(client, needed, method)
        return client

    def identify(
        self, method: str, client: RegisteredClient | None, peer: str, certificate_names: Sequence[str]
    ) -> ClientIdentity:
        """Who makes a call.

        Args:
            method: "/SERVICE/METHOD".
            client: what `find_by_token` returned.
            peer: the address, as gRPC writes it.
            certificate_names: the names of the client's certificate, if it has shown one.

        Raises:
            ApiError, RoleMissing: if the certificate does not allow the call.
        """
        needed = NEEDS.get(method, Role.ADMIN)
        if self._registry is None or needed == OPEN:
            client = client or RegisteredClient(certificate_names[0] if certificate_names else "", ALL_ROLES)
        elif client is None:
            client = self._registry.get().find_by_certificate([*certificate_names])
            if client is None:
                message = "no client has a certificate of this name; send a token, or ask the operator to add the name"
                raise _unauthenticated("CREDENTIALS_INVALID", message)
            _check_role(client, needed, method)
        return client_identity(peer, client.name, client.roles)


def build_access_control(security: Security, listen: Sequence[str]) -> AccessControl:
    """The access control of a server that listens on these addresses.

    Raises:
        ValueError: if the file of clients cannot be used, or tokens would travel in plaintext.
    """
    client_certificates = security.tls is not None and security.tls.client_ca is not None
    path = security.clients
    if path is None:
        return AccessControl(None, client_certificates=client_certificates)
    if security.tls is None and not security.plaintext_tokens:
        for address in listen:
            if not is_local(address):
                raise ValueError(
                    f"tokens for {address} would travel in plaintext; give --tls-cert and --tls-key, listen on "
                    "127.0.0.1, or give --allow-plaintext-tokens if a proxy in front of the server encrypts"
                )
    try:
        registry = Reloading("clients", [path], lambda: load_clients(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if registry.get().certificates and not client_certificates:
        raise ValueError(f"{path} lists clients by their certificates; that needs --tls-client-ca")
    return AccessControl(registry, client_certificates=client_certificates)


def _check_role(client: RegisteredClient, needed: str, method: str) -> None:
    if needed != KNOWN:
        client_identity("", client.name, client.roles).require(Role(needed), f"call {method}")


def _unauthenticated(reason: str, message: str) -> ApiError:
    return ApiError(Code.UNAUTHENTICATED, reason, message)
