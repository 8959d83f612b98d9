"""Server reflection for tools such as `grpcurl`, in both versions of its protocol.

Newer tools try v1 first, and some know no other. Its messages equal those of v1alpha but for the package's name, so one
servicer implements both.
"""

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

METHOD = "ServerReflectionInfo"


def enable_reflection(services: Iterable[tuple[str, FileDescriptor]], server: grpc.aio.Server) -> None:
    """Let clients list the services and their messages.

    Args:
        services: full names, such as "grpc.health.v1.Health", and the descriptors of their files.
        server: a server that has not started.
    """
    alpha = reflection_pb2.DESCRIPTOR
    v1 = _v1_file(alpha)
    names = [*(name for name, _ in services), reflection.SERVICE_NAME, f"{v1.package}.ServerReflection"]
    pool = DescriptorPool()  # not the default one, where another library may describe v1
    # with the details of errors, so that tools can show them
    for file in (alpha, error_details_pb2.DESCRIPTOR, *(file for _, file in services)):
        _add(file, pool)
    pool.AddSerializedFile(v1.SerializeToString())
    servicer = reflection.aio.ReflectionServicer(names, pool)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, {METHOD: handler}) for name in names[-2:]]
    )


def _v1_file(alpha: Any) -> Any:
    """The descriptor of v1: that of v1alpha, renamed."""
    file = descriptor_pb2.FileDescriptorProto()
    alpha.CopyToProto(file)
    return text_format.Parse(text_format.MessageToString(file).replace("v1alpha", "v1"), type(file)())


def _add(file: FileDescriptor, pool: DescriptorPool) -> None:
    for dependency in file.dependencies:
        _add(dependency, pool)
    pool.AddSerializedFile(file.serialized_pb)
