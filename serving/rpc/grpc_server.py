"""The gRPC server that listens for the services' calls."""

import asyncio
import errno
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.pb.inference import open_inference_pb2, open_inference_pb2_grpc
from serving.pb.pawserve.v1 import classifier_pb2, classifier_pb2_grpc
from serving.rpc.calls import CallInterceptor
from serving.rpc.classifier_service import ClassifierService
from serving.rpc.health import HealthServicer
from serving.rpc.inference_service import InferenceService
from serving.rpc.reflection import enable_reflection
from serving.security.settings import TlsFiles
from serving.system.network import UNIX, format_address, free_unix_path, parse_address, resolve

CLASSIFIER = classifier_pb2.DESCRIPTOR.services_by_name["Classifier"].full_name
INFERENCE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class GrpcServer:
    """Listens on one port: `listen`, then `drain`.

    Args:
        classifier: serves `pawserve.v1.Classifier`.
        inference: serves the Open Inference Protocol.
        health: serves `grpc.health.v1.Health`.
        interceptor: all calls pass it.
        options: for `grpc.aio.server`.
        reflection: whether clients may list the services and their messages.
    """

    def __init__(
        self,
        classifier: ClassifierService,
        inference: InferenceService,
        health: HealthServicer,
        *,
        interceptor: CallInterceptor,
        options: Sequence[tuple[str, int]],
        reflection: bool,
    ) -> None:
        self._drain = interceptor.drain
        self._server = grpc.aio.server(options=options, interceptors=[interceptor])
        services = _GenericHandlers(self._server)
        classifier_pb2_grpc.add_ClassifierServicer_to_server(classifier, services)  # type: ignore[no-untyped-call]
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, services)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(health, services)
        if reflection:
            files = (classifier_pb2.DESCRIPTOR, open_inference_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR)
            enable_reflection([*zip((CLASSIFIER, INFERENCE, HEALTH), files, strict=True)], self._server)

    async def listen(self, address: str, tls: TlsFiles | None) -> int:
        """Listen on all addresses of HOST:PORT, or on unix:PATH.

        Returns:
            The port; 0 for a Unix socket.

        Raises:
            ValueError: if the certificate cannot be used.
            OSError: if one of the addresses cannot be used; `filename` is that address.
        """
        add: Callable[[str], int] = self._server.add_insecure_port
        if tls is not None:
            from serving.security.tls import server_credentials  # loads `cryptography`

            add = partial(self._server.add_secure_port, server_credentials=server_credentials(tls))
        if address.startswith(UNIX):
            free_unix_path(address.removeprefix(UNIX))
            port = 0
            _bind(add, address)
        else:
            host, port = parse_address(address)
            for each in resolve(host):  # gRPC itself reports no error if it can bind only one of them
                port = _bind(add, format_address(each, port))
        await self._server.start()
        return port

    async def drain(self, grace_s: float, cut_short: asyncio.Event) -> None:
        """Finish the calls in flight and stop.

        Args:
            grace_s: seconds after which calls in flight are cancelled.
            cut_short: cancels them at once.
        """
        await self._drain.hold()
        stopped = asyncio.create_task(self._server.stop(grace_s))
        await self._drain.release()
        waiting = asyncio.create_task(cut_short.wait())
        await asyncio.wait((stopped, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not stopped.done():
            await self._server.stop(None)
        waiting.cancel()
        await stopped


class _GenericHandlers:
    """Adds services to a server without registering each method with gRPC.

    For each call, gRPC's event loop would wait for the next call of every registered method, some twenty at a time.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, object]) -> None:
        """Called by generated code."""


def _bind(add: Callable[[str], int], address: str) -> int:
    try:
        return add(address)
    except RuntimeError as error:
        reason = "the port is in use, or the address is not one of this machine's"
        if address.startswith(UNIX):
            reason = "the socket cannot be created; its folder must exist, and this user must be able to write in it"
        raise OSError(errno.EADDRINUSE, reason, address) from error
