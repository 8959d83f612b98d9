"""The services of a server in; what `grpcurl` and its like ask about them, in both versions of the protocol, out.

Newer tools ask version 1 first, and some ask nothing else. Its messages are those of v1alpha under another name, to the
byte, so one servicer answers both.
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
    """Answer what clients ask about the services.

    Args:
        services: full names, such as "grpc.health.v1.Health", and the files that describe them.
        server: one that has not started.
    """
    alpha = reflection_pb2.DESCRIPTOR
    version_1 = _version_1(alpha)
    names = [*(name for name, _ in services), reflection.SERVICE_NAME, f"{version_1.package}.ServerReflection"]
    pool = DescriptorPool()  # one of our own: another library may describe version 1 in everybody's
    # the details of errors too, so that a tool can show what is in them
    for file in (alpha, error_details_pb2.DESCRIPTOR, *(file for _, file in services)):
        _add(file, pool)
    pool.AddSerializedFile(version_1.SerializeToString())
    servicer = reflection.aio.ReflectionServicer(names, pool)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, {METHOD: handler}) for name in names[-2:]]
    )


def _version_1(alpha: Any) -> Any:
    """The description of version 1: that of v1alpha, renamed."""
    file = descriptor_pb2.FileDescriptorProto()
    alpha.CopyToProto(file)
    return text_format.Parse(text_format.MessageToString(file).replace("v1alpha", "v1"), type(file)())


def _add(file: FileDescriptor, pool: DescriptorPool) -> None:
    for dependency in file.dependencies:
        _add(dependency, pool)
    pool.AddSerializedFile(file.serialized_pb)
