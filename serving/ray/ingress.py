"""The methods that Ray Serve's gRPC ingress forwards to replicas.

Ray calls the functions below where its ingress runs (`grpc_servicer_functions`) and replaces the handlers by its own.
Requests stay bytes until a replica parses them as the plain server does. So each is parsed once, and invalid bytes give
the same error.
"""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from serving.pb.pawserve.v1 import classifier_pb2

CLASSIFIER: ServiceDescriptor = classifier_pb2.DESCRIPTOR.services_by_name["Classifier"]
HEALTH: ServiceDescriptor = health_pb2.DESCRIPTOR.services_by_name["Health"]

HEALTH_METHODS = ("Check",)
"""Without Watch: a call that never ends would count as load of one replica and keep it from being removed. gRPC clients
treat UNIMPLEMENTED as healthy, and the ingress chooses the replica."""


def add_classifier(servicer: object, server: grpc.aio.Server) -> None:
    """Register the methods of pawserve.v1.Classifier."""
    _add(server, CLASSIFIER, [method.name for method in CLASSIFIER.methods])


def add_health(servicer: object, server: grpc.aio.Server) -> None:
    """Register the methods of grpc.health.v1.Health."""
    _add(server, HEALTH, HEALTH_METHODS)


SERVICER_FUNCTIONS = ("serving.ray.ingress.add_classifier", "serving.ray.ingress.add_health")
"""The value of `grpc_servicer_functions` in Ray Serve's gRPC options."""


def _add(server: grpc.aio.Server, service: ServiceDescriptor, names: Sequence[str]) -> None:
    handlers = {name: _handler(service.methods_by_name[name]) for name in names}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    server.add_registered_method_handlers(service.full_name, handlers)


def _handler(method: Any) -> grpc.RpcMethodHandler:
    """A handler of the method's kind without deserializer and serializer, so that messages stay bytes."""
    kind = "_".join(
        "stream" if streaming else "unary" for streaming in (method.client_streaming, method.server_streaming)
    )
    make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(None)
