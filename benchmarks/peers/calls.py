"""Encoded photos in; each server's protocol as bytes, ready to send, and callers that send them.

Lean on purpose: requests are made before the clock starts, and answers are not parsed while it runs.
"""

import asyncio
import json
import struct
from base64 import b64encode
from collections.abc import Mapping
from typing import Protocol

import grpc
import numpy as np


class Caller(Protocol):
    """Sends one request at a time, or many if the protocol multiplexes."""

    async def call(self, request: bytes) -> bytes:
        """The answer's message or body; raises if it is not the success that was asked for."""

    async def close(self) -> None:
        """Let go of the connection."""


class GrpcCaller:
    """One channel for all callers, which gRPC multiplexes."""

    def __init__(self, port: int, method: str) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._call = self._channel.unary_unary(method)

    async def call(self, request: bytes) -> bytes:
        answer: bytes = await self._call(request, timeout=60)
        return answer

    async def close(self) -> None:
        await self._channel.close()


class HttpCaller(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection, as small as can be: one request at a time, status and body."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        body = _body(self._buffer)
        if body is not None and self._answer is not None:
            answer, self._answer = self._answer, None
            if self._buffer.startswith(b"HTTP/1.1 200 "):
                answer.set_result(body)
            else:
                answer.set_exception(RuntimeError(bytes(self._buffer[:500]).decode(errors="replace")))
            self._buffer.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None:
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    async def call(self, request: bytes) -> bytes:
        assert self._answer is None, "one request at a time"
        answer = self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await answer

    async def close(self) -> None:
        self._transport.close()


def _body(answer: bytearray) -> bytes | None:
    """The body of an HTTP/1.1 answer (RFC 9112, sections 6 and 7.1); None while it is incomplete."""
    head, found, rest = bytes(answer).partition(b"\r\n\r\n")
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


async def open_callers(peer: str, port: int, count: int) -> list[Caller]:
    """Callers for so many requests at a time; gRPC's are all the same one."""
    if peer in GRPC_METHODS:
        return [GrpcCaller(port, GRPC_METHODS[peer])] * count
    loop = asyncio.get_running_loop()
    pairs = [await loop.create_connection(HttpCaller, "127.0.0.1", port) for _ in range(count)]
    return [caller for _, caller in pairs]


GRPC_METHODS = {
    "pawserve": "/pawserve.v1.Classifier/Classify",
    "triton": "/inference.GRPCInferenceService/ModelInfer",
}


def to_request(peer: str, setting: Mapping[str, str], photo: bytes) -> bytes:
    """One photo as the server's users send it."""
    if peer == "pawserve":
        from serving.pb.pawserve.v1 import classifier_pb2 as pb

        return pb.ClassifyRequest(images=[pb.ImageInput(content=photo)]).SerializeToString()
    if peer == "triton":
        # here: tritonclient registers the names of the standard, which a process can only do once
        from tritonclient.grpc import service_pb2

        request = service_pb2.ModelInferRequest(model_name="pets")
        request.inputs.add(name="IMAGE", datatype="BYTES", shape=[1, 1])
        request.raw_input_contents.append(struct.pack("<I", len(photo)) + photo)
        return bytes(request.SerializeToString())
    if peer == "litserve":
        if setting["body"] == "json":
            return _post("/predict", "application/json", json.dumps({"image": b64encode(photo).decode()}).encode())
        return _post("/predict", "image/jpeg", photo)
    if setting["MAX_BATCH_SIZE"] == "1":
        return _post("/classify", "image/jpeg", photo)
    part = (
        b'--peers\r\nContent-Disposition: form-data; name="pictures"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n'
    )
    return _post("/classify", "multipart/form-data; boundary=peers", part + b"\r\n" + photo + b"\r\n--peers--\r\n")


def _post(path: str, content_type: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def to_probabilities(peer: str, answer: bytes) -> list[float]:
    """What an answer says of its photo, in the order of the bundle's classes sorted by falling probability."""
    if peer == "pawserve":
        from serving.pb.pawserve.v1 import classifier_pb2 as pb

        prediction = pb.ClassifyResponse.FromString(answer).results[0].prediction
        return [entry.probability for entry in prediction.classes]
    if peer == "triton":
        from tritonclient.grpc import service_pb2

        content = service_pb2.ModelInferResponse.FromString(answer).raw_output_contents[0]
        return sorted(np.frombuffer(content, "<f4").tolist(), reverse=True)
    parsed = json.loads(answer)
    return sorted(np.ravel(parsed["probabilities"] if peer == "litserve" else parsed).tolist(), reverse=True)
