"""Requests in each server's protocol, and connections that send them.

They cost little: requests are serialised before the clock starts, and responses are not parsed while it runs.
"""

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import grpc
import httptools
import numpy as np

TIMEOUT_S = 600
"""Limit of each call: on a busy machine, a server rejects what it cannot answer in time."""
GRPC_METHODS = {
    "pawserve": "/pawserve.v1.Classifier/Classify",
    "baseline": "/baseline/Classify",
    "triton": "/inference.GRPCInferenceService/ModelInfer",
}

Call = Callable[[bytes], Awaitable[bytes]]
"""Sends a request and returns the response's message or body; raises if the server reports an error."""


class HttpConnection(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection with as little code as possible: one request at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._transport: asyncio.Transport
        self._response: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """A part of a body, by the parser."""
        self._body += body

    def on_message_complete(self) -> None:
        """The end of a response, by the parser."""
        assert self._response is not None
        status, body = self._parser.get_status_code(), bytes(self._body)
        self._body.clear()
        response, self._response = self._response, None
        if status == 200:
            response.set_result(body)
        else:
            response.set_exception(RuntimeError(f"HTTP status {status}: {body[:500].decode(errors='replace')}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._response is not None:
            self._response.set_exception(exc or ConnectionError("the server closed the connection"))

    async def call(self, request: bytes) -> bytes:
        assert self._response is None, "one request at a time"
        response = self._response = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        body: bytes = await response
        return body


async def call_several_times(call: Call, count: int, request: bytes) -> bytes:
    """Send a request so many times at once, and wait for all responses; multiplexing connections only."""
    first, *_ = await asyncio.gather(*(call(request) for _ in range(count)))
    return first


def open_channel(address: str) -> grpc.aio.Channel:
    """A connection of its own, also beside others to the same address, for responses of any length."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(address, options=options)


async def stream_images(
    channel: grpc.aio.Channel, requests: Iterator[bytes], in_flight: int, until: float
) -> AsyncIterator[bytes]:
    """The responses of pawserve's ClassifyStream, `in_flight` of which are waited for until a time of perf_counter."""
    free = asyncio.Semaphore(in_flight)

    async def send() -> AsyncIterator[bytes]:
        for request in requests:
            await free.acquire()
            if time.perf_counter() > until:
                return
            yield request

    async for response in channel.stream_stream("/pawserve.v1.Classifier/ClassifyStream")(send(), timeout=TIMEOUT_S):
        free.release()
        yield response


@asynccontextmanager
async def open_calls(server: str, address: str, count: int) -> AsyncIterator[list[Call]]:
    """Connect for so many requests at a time: a call for each of them; with gRPC all are the same one."""
    if server in GRPC_METHODS:
        async with open_channel(address) as channel:
            yield [partial(channel.unary_unary(GRPC_METHODS[server]), timeout=TIMEOUT_S)] * count
        return
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    pairs = [await loop.create_connection(HttpConnection, host, int(port)) for _ in range(count)]
    try:
        yield [connection.call for _, connection in pairs]
    finally:
        for transport, _ in pairs:
            transport.close()


def to_request(
    server: str, setting: Mapping[str, str], image: bytes, views: int = 1, *, adaptive: bool = False
) -> bytes:
    """One encoded image as the server's users send it; `views` and `adaptive` are for pawserve's gRPC."""
    if server == "baseline":
        return image
    if server == "pawserve":
        from serving.pb.pawserve.v1 import classifier_pb2 as pb

        inputs = [pb.ImageInput(content=image)]
        return pb.ClassifyRequest(images=inputs, views=views, adaptive=adaptive).SerializeToString()
    if server == "triton":
        # imported here, because it registers protobuf names that a process can register only once
        from tritonclient.grpc import service_pb2

        request = service_pb2.ModelInferRequest(model_name="pets")
        request.inputs.add(name="images", datatype="BYTES", shape=[1, 1])
        request.raw_input_contents.append(struct.pack("<I", len(image)) + image)
        return bytes(request.SerializeToString())
    if server == "pawserve-http":
        return _post("/v1/classify", "image/jpeg", image)
    if server == "triton-http":
        return _post_to_triton(image)
    if server == "litserve":
        return _post("/predict", "image/jpeg", image)
    if setting["MAX_BATCH_SIZE"] == "1":
        return _post("/classify", "image/jpeg", image)
    part = b'--peers\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n'
    return _post("/classify", "multipart/form-data; boundary=peers", part + b"\r\n" + image + b"\r\n--peers--\r\n")


def _post(path: str, content_type: str, body: bytes, more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{more}\r\n".encode() + body


def _post_to_triton(image: bytes) -> bytes:
    """Send the image in the binary form of the Open Inference Protocol: JSON, then the tensor's bytes."""
    content = struct.pack("<I", len(image)) + image
    size = {"binary_data_size": len(content)}
    given = {"name": "images", "datatype": "BYTES", "shape": [1, 1], "parameters": size}
    wanted = {"name": "probabilities", "parameters": {"binary_data": True}}
    described = json.dumps({"inputs": [given], "outputs": [wanted]}).encode()
    more = f"Inference-Header-Content-Length: {len(described)}\r\n"
    return _post("/v2/models/pets/infer", "application/octet-stream", described + content, more)


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
    if server == "triton-http":  # JSON, then the tensor's bytes
        parsed, end = json.JSONDecoder().raw_decode(response.decode("latin-1"))
        assert [each["name"] for each in parsed["outputs"]] == ["probabilities"]
        return sorted(np.frombuffer(response[end:], "<f4").tolist(), reverse=True)
    parsed = json.loads(response)
    if server == "pawserve-http":
        return [entry["probability"] for entry in parsed["results"][0]["prediction"]["classes"]]
    return sorted(np.ravel(parsed["probabilities"] if server == "litserve" else parsed).tolist(), reverse=True)
