"""Requests in each server's protocol, and connections that send them.

They cost little: requests are serialised before the clock starts, and responses are not parsed while it runs.
"""

import asyncio
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import grpc
import numpy as np

TIMEOUT_S = 60
GRPC_METHODS = {
    "pawserve": "/pawserve.v1.Classifier/Classify",
    "baseline": "/baseline/Classify",
    "triton": "/inference.GRPCInferenceService/ModelInfer",
}
SERVERS = (*GRPC_METHODS, "pawserve-http", "litserve", "bentoml")


class Connection(Protocol):
    """Sends one request at a time, or many if the protocol multiplexes."""

    async def call(self, request: bytes) -> bytes:
        """Send a request and return the response's message or body; raises if the server reports an error."""

    async def close(self) -> None:
        """Close the connection."""


class GrpcConnection:
    """One channel for all clients, which gRPC multiplexes."""

    def __init__(self, address: str, method: str) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._call = self._channel.unary_unary(method)

    async def call(self, request: bytes) -> bytes:
        response: bytes = await self._call(request, timeout=TIMEOUT_S)
        return response

    async def close(self) -> None:
        await self._channel.close()


class HttpConnection(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection with as little code as possible: one request at a time, status and body."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport
        self._response: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        body = _body(self._buffer)
        if body is not None and self._response is not None:
            response, self._response = self._response, None
            if self._buffer.startswith(b"HTTP/1.1 200 "):
                response.set_result(body)
            else:
                response.set_exception(RuntimeError(bytes(self._buffer[:500]).decode(errors="replace")))
            self._buffer.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._response is not None:
            self._response.set_exception(exc or ConnectionError("the server closed the connection"))

    async def call(self, request: bytes) -> bytes:
        assert self._response is None, "one request at a time"
        response = self._response = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        body: bytes = await response
        return body

    async def close(self) -> None:
        self._transport.close()


@dataclass(frozen=True)
class SeveralTimes:
    """Sends each request so many times at once, and waits for all responses; multiplexing connections only."""

    connection: Connection
    count: int

    async def call(self, request: bytes) -> bytes:
        responses = await asyncio.gather(*(self.connection.call(request) for _ in range(self.count)))
        return responses[0]

    async def close(self) -> None:
        await self.connection.close()


def _body(response: bytearray) -> bytes | None:
    """The body of an HTTP/1.1 response (RFC 9112, sections 6 and 7.1); None while it is incomplete."""
    head, found, rest = bytes(response).partition(b"\r\n\r\n")
    if not found:
        return None
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"content-length" in headers:
        return rest if len(rest) >= int(headers[b"content-length"]) else None
    if not rest.endswith(b"0\r\n\r\n"):
        return None
    body = b""
    while (size := int(rest.partition(b"\r\n")[0], 16)) > 0:
        begin = rest.index(b"\r\n") + 2
        body, rest = body + rest[begin : begin + size], rest[begin + size + 2 :]
    return body


async def open_connections(server: str, address: str, count: int) -> list[Connection]:
    """Connections for so many requests at a time; with gRPC all are the same one."""
    if server in GRPC_METHODS:
        return [GrpcConnection(address, GRPC_METHODS[server])] * count
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    pairs = [await loop.create_connection(HttpConnection, host, int(port)) for _ in range(count)]
    return [connection for _, connection in pairs]


def to_request(server: str, setting: Mapping[str, str], image: bytes, views: int = 1) -> bytes:
    """One encoded image as the server's users send it; `views` is for pawserve's gRPC."""
    if server == "baseline":
        return image
    if server == "pawserve":
        from serving.pb.pawserve.v1 import classifier_pb2 as pb

        return pb.ClassifyRequest(images=[pb.ImageInput(content=image)], views=views).SerializeToString()
    if server == "triton":
        # imported here, because it registers protobuf names that a process can register only once
        from tritonclient.grpc import service_pb2

        request = service_pb2.ModelInferRequest(model_name="pets")
        request.inputs.add(name="IMAGE", datatype="BYTES", shape=[1, 1])
        request.raw_input_contents.append(struct.pack("<I", len(image)) + image)
        return bytes(request.SerializeToString())
    if server == "pawserve-http":
        return _post("/v1/classify", "image/jpeg", image)
    if server == "litserve":
        return _post("/predict", "image/jpeg", image)
    if setting["MAX_BATCH_SIZE"] == "1":
        return _post("/classify", "image/jpeg", image)
    part = b'--peers\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n'
    return _post("/classify", "multipart/form-data; boundary=peers", part + b"\r\n" + image + b"\r\n--peers--\r\n")


def _post(path: str, content_type: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def to_probabilities(server: str, response: bytes) -> list[float]:
    """The probabilities in a response, the highest first."""
    if server == "pawserve":
        from serving.pb.pawserve.v1 import classifier_pb2 as pb

        prediction = pb.ClassifyResponse.FromString(response).results[0].prediction
        return [entry.probability for entry in prediction.classes]
    if server == "triton":
        from tritonclient.grpc import service_pb2

        content = service_pb2.ModelInferResponse.FromString(response).raw_output_contents[0]
        return sorted(np.frombuffer(content, "<f4").tolist(), reverse=True)
    parsed = json.loads(response)
    if server == "pawserve-http":
        return [entry["probability"] for entry in parsed["results"][0]["prediction"]["classes"]]
    return sorted(np.ravel(parsed["probabilities"] if server == "litserve" else parsed).tolist(), reverse=True)
