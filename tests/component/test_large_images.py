"""Large images of one client, beside small ones of another, on a real server."""

import asyncio
import base64
import gzip
import json
import struct
from collections.abc import Iterable
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from serving.pb.inference import open_inference_pb2 as oip
from serving.pb.inference import open_inference_pb2_grpc as oip_grpc
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.rpc.calls import LARGE_MESSAGE_BYTES
from serving.web.bodies import LARGE_BODY_BYTES
from tests.support.bundles import write_bundle
from tests.support.http import ask, multipart
from tests.support.images import encoded
from tests.support.servers import HttpServerProcess, running_server
from tests.support.waiting import LIMIT_S

LARGE = 4


def request(size: tuple[int, int], format_: str) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(images=[pb.ImageInput(content=encoded(Image.new("RGB", size, "red"), format_))])


def channel(address: str) -> grpc.aio.Channel:
    """A connection of its own; gRPC would share one between equal channels of a process."""
    return grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


def test_small_images_are_classified_beside_another_client_s_large_ones(tmp_path: Path) -> None:
    large, small = request((6000, 6000), "PNG"), request((80, 60), "JPEG")

    async def run(address: str) -> list[pb.ClassifyResponse]:
        async with channel(address) as greedy, channel(address) as polite:
            calls = [pb_grpc.ClassifierStub(greedy).Classify(large, timeout=LIMIT_S) for _ in range(LARGE)]
            calls += [pb_grpc.ClassifierStub(polite).Classify(small, timeout=LIMIT_S) for _ in range(LARGE)]
            return await asyncio.gather(*calls)

    write_bundle(tmp_path / "models")
    with running_server(tmp_path / "models", tmp_path / "state") as address:
        responses = asyncio.run(run(address))
    assert [labels(response.results) for response in responses] == [["red"]] * (2 * LARGE)


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    """A large image of each colour, which are parsed in threads and not copied out of their requests."""
    images = {name: encoded(Image.new("RGB", (1600, 1300), name), "BMP") for name in ("red", "blue")}
    assert min(map(len, images.values())) > max(LARGE_MESSAGE_BYTES, LARGE_BODY_BYTES)
    return images


def labels(results: Iterable[pb.ImageResult]) -> list[str]:
    return [result.prediction.classes[0].label for result in results]


def test_large_images_of_all_calls_are_classified(server: HttpServerProcess, images: dict[str, bytes]) -> None:
    red, blue = images["red"], images["blue"]
    inputs = [pb.ImageInput(content=red), pb.ImageInput(content=blue, label="blue"), pb.ImageInput(label="blue")]
    tensor = oip.ModelInferRequest.InferInputTensor(name="images", datatype="BYTES", shape=[2])
    raw = b"".join(struct.pack("<I", len(image)) + image for image in (blue, red))
    infer = oip.ModelInferRequest(model_name="colours", inputs=[tensor], raw_input_contents=[raw])
    with grpc.insecure_channel(server.address) as plain:
        stub = pb_grpc.ClassifierStub(plain)
        response = stub.Classify(pb.ClassifyRequest(images=inputs), timeout=LIMIT_S)
        assert labels(response.results[:2]) == ["red", "blue"]
        assert response.results[2].error.message.endswith("the image has 0 bytes")
        requests = [pb.ClassifyStreamRequest(id=name, image=pb.ImageInput(content=images[name])) for name in images]
        answers = stub.ClassifyStream(iter(requests), timeout=LIMIT_S)
        assert {each.id: labels([each.result]) for each in answers} == {"red": ["red"], "blue": ["blue"]}
        inference = oip_grpc.GRPCInferenceServiceStub(plain)
        pixels = oip.ModelInferRequest.InferInputTensor(name="pixels", datatype="UINT8", shape=[1, 800, 800, 3])
        decoded = oip.ModelInferRequest(
            model_name="colours", inputs=[pixels], raw_input_contents=[b"\x00\x00\xff" * 800**2]
        )
        for request, expected in ((infer, [[1, 0, 0], [0, 0, 1]]), (decoded, [[1, 0, 0]])):
            (streamed,) = inference.ModelStreamInfer(iter([request]), timeout=LIMIT_S)
            for answer in (inference.ModelInfer(request, timeout=LIMIT_S), streamed.infer_response):
                probabilities = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(-1, 3)
                assert probabilities.round().tolist() == expected


def test_large_images_over_http_are_classified(server: HttpServerProcess, images: dict[str, bytes]) -> None:
    red, blue = images["red"], images["blue"]
    body = json.dumps({"images": [{"content": base64.b64encode(red).decode()}]}).encode()
    predictions = [
        ask(server.url, "/v1/classify", red),
        ask(server.url, "/v1/classify", gzip.compress(red, 0), {"content-encoding": "gzip"}),
        ask(server.url, "/v1/classify", *multipart(red, blue)),
        ask(server.url, "/v1/classify", body, {"content-type": "application/json"}),
    ]
    assert [[each["prediction"]["classes"][0]["label"] for each in one.json()["results"]] for one in predictions] == [
        ["red"],
        ["red"],
        ["red", "blue"],
        ["red"],
    ]
    content = struct.pack("<I", len(blue)) + blue
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(content)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    header = {"inference-header-content-length": str(len(head))}
    answer = ask(server.url, "/v2/models/colours/infer", head + content, header)
    assert [round(each) for each in answer.json()["outputs"][0]["data"]] == [1, 0, 0]


def test_a_large_request_that_is_damaged_is_rejected(server: HttpServerProcess, images: dict[str, bytes]) -> None:
    message = pb.ClassifyRequest(images=[pb.ImageInput(content=images["red"])])
    with grpc.insecure_channel(server.address) as plain:
        with pytest.raises(grpc.RpcError) as caught:
            plain.unary_unary("/pawserve.v1.Classifier/Classify")(message.SerializeToString()[:-1], timeout=LIMIT_S)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "are not a message of this method" in caught.value.details()
