"""The Open Inference Protocol over REST: Triton's client, JSON tensors, base64, binary data, and bad requests."""

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from tests.support.commands import run_cold
from tests.support.http import Answer, ask
from tests.support.images import RED
from tests.support.servers import HttpServerProcess

LENGTH = "inference-header-content-length"


def infer(server: HttpServerProcess, body: object, path: str = "/v2/models/colours/infer", **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(server.url, path, content, {name.replace("_", "-"): each for name, each in headers.items()})


def images(*contents: bytes, **more: object) -> dict[str, object]:
    data = [base64.b64encode(content).decode() for content in contents]
    parameters = {"content_type": "base64"}
    return {"name": "images", "datatype": "BYTES", "shape": [len(data)], "parameters": parameters, "data": data, **more}


def tensors(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    return {output["name"]: output for output in answer.json()["outputs"]}


@pytest.mark.parametrize("how", ["sync", "asyncio"])
def test_tritons_client_is_answered_as_by_triton(server: HttpServerProcess, how: str) -> None:
    finished = run_cold("tests.support.triton_http_calls", how, server.url.removeprefix("http://"))
    assert finished.returncode == 0, finished.stderr


def test_images_in_base64_are_answered_in_json(server: HttpServerProcess) -> None:
    answer = infer(server, {"id": "7", "inputs": [images(RED, RED)], "parameters": {"top_k": 2}})
    assert answer.headers["content-type"] == "application/json"
    assert {name: answer.json()[name] for name in ("id", "model_name", "model_version")} == {
        "id": "7",
        "model_name": "colours",
        "model_version": "1",
    }
    found = tensors(answer)
    assert found["labels"]["data"][0] == "red"
    assert found["labels"]["shape"] == [2, 2]
    assert found["probabilities"]["shape"] == [2, 3]
    assert sum(found["probabilities"]["data"]) == pytest.approx(2)
    assert found["views"] == {"name": "views", "datatype": "INT32", "shape": [2], "data": [1, 1]}


@pytest.mark.parametrize("nested", [True, False])
def test_pixels_may_be_nested_or_flat_lists(server: HttpServerProcess, nested: bool) -> None:
    pixels = np.full((1, 10, 12, 3), (0, 0, 255), np.uint8)
    data = pixels.tolist() if nested else pixels.ravel().tolist()
    body = {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [*pixels.shape], "data": data}]}
    assert tensors(infer(server, body))["labels"]["data"][0] == "blue"


def test_binary_tensors_follow_the_json(server: HttpServerProcess) -> None:
    raw = struct.pack("<I", len(RED)) + RED
    parameters = {"binary_data_size": len(raw)}
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "parameters": parameters}
    wanted = [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "labels"}]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    answer = infer(server, head + raw, **{LENGTH: str(len(head))})
    assert answer.headers["content-type"] == "application/octet-stream"
    at = int(answer.headers[LENGTH])
    scores, labels = json.loads(answer.content[:at])["outputs"]
    assert scores["parameters"] == {"binary_data_size": 12}
    assert np.frombuffer(answer.content[at:], "<f4")[0] > 0.9
    assert labels["data"][0] == "red"


def test_all_outputs_are_binary_if_the_request_says_so(server: HttpServerProcess) -> None:
    answer = infer(server, {"inputs": [images(RED)], "parameters": {"binary_data_output": True}})
    at = int(answer.headers[LENGTH])
    outputs = json.loads(answer.content[:at])["outputs"]
    assert len(outputs) == 5
    assert sum(output["parameters"]["binary_data_size"] for output in outputs) == len(answer.content) - at


BAD = {
    "no inputs": ({}, "TENSOR_INVALID", "inputs"),
    "no list": ({"inputs": {}}, "MESSAGE_INVALID", "inputs"),
    "unknown input": ({"inputs": [{**images(RED), "name": "pictures"}]}, "TENSOR_INVALID", "inputs[0].name"),
    "another type": ({"inputs": [{**images(RED), "datatype": "FP32"}]}, "TENSOR_INVALID", "inputs[0].data"),
    "a shape of text": ({"inputs": [{**images(RED), "shape": ["1"]}]}, "MESSAGE_INVALID", "inputs[0].shape"),
    "a large shape": ({"inputs": [{**images(RED), "shape": [2**70]}]}, "MESSAGE_INVALID", "inputs[0].shape"),
    "too few": ({"inputs": [images(RED, shape=[2])]}, "TENSOR_INVALID", "inputs[0].data"),
    "no base64": ({"inputs": [images(RED, data=["*"])]}, "TENSOR_INVALID", "inputs[0].data"),
    "numbers": ({"inputs": [images(RED, data=[1])]}, "MESSAGE_INVALID", "inputs[0].data"),
    "no data": (
        {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1]}]},
        "TENSOR_INVALID",
        "inputs[0].data",
    ),
    "binary without data": (
        {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 9}}]},
        "TENSOR_INVALID",
        "inputs[0].parameters",
    ),
    "shared memory": (
        {"inputs": [images(RED, parameters={"shared_memory_region": "r", "content_type": "base64"})]},
        "TENSOR_INVALID",
        "inputs[0].parameters",
    ),
    "ragged": (
        {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [[1, 2], [3]]}]},
        "TENSOR_INVALID",
        "inputs[0].data",
    ),
    "not a byte": (
        {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 256]}]},
        "TENSOR_INVALID",
        "inputs[0].data",
    ),
    "numbers and a long text": (
        {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1], "data": ["9" * 10_000, *[0] * 500_000]}]},
        "TENSOR_INVALID",
        "inputs[0].data",
    ),
    "a list beside a number": (
        {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, [2, 3]]}]},
        "TENSOR_INVALID",
        "inputs[0].data",
    ),
    "booleans": (
        {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [True, False, True]}]},
        "TENSOR_INVALID",
        "inputs[0].data",
    ),
    "unknown output": ({"inputs": [images(RED)], "outputs": [{"name": "boxes"}]}, "TENSOR_INVALID", "outputs[0].name"),
    "unknown parameter": ({"inputs": [images(RED)], "parameters": {"a": 1}}, "PARAMETER_INVALID", "parameters"),
    "a list as parameter": ({"inputs": [images(RED)], "parameters": {"a": []}}, "PARAMETER_INVALID", "parameters"),
    "not an image": ({"inputs": [images(RED, b"I am a cat")]}, "NOT_AN_IMAGE", "inputs[0] image 1"),
}


@pytest.mark.parametrize(("body", "reason", "field"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named(server: HttpServerProcess, body: object, reason: str, field: str) -> None:
    answer = infer(server, body)
    assert (answer.status, answer.reason, answer.json()["field"]) == (400, reason, field)
    assert answer.json()["error"] == answer.json()["detail"]
    assert "raw_input_contents" not in answer.json()["detail"]


@pytest.mark.parametrize("length", ["-1", "x", "1000000", "3"])
def test_a_wrong_length_of_the_json_is_an_error(server: HttpServerProcess, length: str) -> None:
    assert infer(server, {"inputs": [images(RED)]}, **{LENGTH: length}).reason == "MESSAGE_INVALID"


def test_json_with_more_numbers_than_pixels_may_have_is_not_parsed(server: HttpServerProcess) -> None:
    body = b'{"inputs": [{"name": "pixels", "data": [' + b"0," * 1_100_000 + b"0]}]}"
    answer = infer(server, body)
    assert answer.reason == "MESSAGE_INVALID"
    assert "1,010,000" in answer.json()["detail"]


def test_the_parameters_of_a_load_are_an_object(server: HttpServerProcess) -> None:
    answer = ask(server.url, "/v2/repository/models/colours/load", b'{"parameters": 5}')
    assert (answer.status, answer.reason, answer.json()["field"]) == (400, "MESSAGE_INVALID", "parameters")


def test_health_and_readiness_of_models(server: HttpServerProcess) -> None:
    assert ask(server.url, "/v2/health/live").json() == {"live": True}
    assert ask(server.url, "/v2/health/ready").json() == {"ready": True}
    assert ask(server.url, "/v2/models/colours/versions/1/ready").json() == {"name": "colours", "ready": True}
    missing = ask(server.url, "/v2/models/cars/ready")
    assert (missing.status, missing.json()) == (400, {"name": "cars", "ready": False})
    assert ask(server.url, "/v2/models/cars").status == 404
