"""The Open Inference Protocol on a real server: Triton's own client, and malformed requests."""

import struct
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from serving.client import Client
from serving.pb.inference import open_inference_pb2 as pb
from serving.pb.inference import open_inference_pb2_grpc as pb_grpc
from tests.support.bundles import write_bundle
from tests.support.commands import run_cold
from tests.support.images import encoded
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S

RED = encoded(Image.new("RGB", (60, 50), "red"), "JPEG")
HUGE = 2**62


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    write_bundle(tmp_path / "models")
    with running_server(tmp_path / "models", tmp_path / "state") as address:
        yield address


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pb_grpc.GRPCInferenceServiceStub]:
    folder = tmp_path_factory.mktemp("inference")
    write_bundle(folder / "models")
    with running_server(folder / "models", folder / "state") as address, grpc.insecure_channel(address) as channel:
        yield pb_grpc.GRPCInferenceServiceStub(channel)


@pytest.mark.parametrize("how", ["sync", "asyncio", "stream"])
def test_triton_s_client_works(address: str, how: str) -> None:
    finished = run_cold("tests.support.triton_client_calls", how, address)
    assert finished.returncode == 0, finished.stderr
    if how == "sync":  # tokens of one protocol are valid in the other
        with Client(address, timeout_s=LIMIT_S) as client:
            (recorded,) = client.record_labels([(finished.stdout.strip(), "red")])
            assert recorded.predicted == "red"  # type: ignore[union-attr]
            # no image of the rejected requests is counted
            assert client.statistics()[0].predictions == 9


def images(contents: list[bytes], **changes: object) -> pb.ModelInferRequest:
    """A request with encoded images as typed contents."""
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="images",
        datatype="BYTES",
        shape=[len(contents)],
        contents=pb.InferTensorContents(bytes_contents=contents),
    )
    return pb.ModelInferRequest(**{"model_name": "colours", "inputs": [tensor], **changes})


def tensor(
    name: str, datatype: str, shape: list[int], raw: bytes | None = None, **contents: object
) -> pb.ModelInferRequest:
    typed = pb.InferTensorContents(**contents) if contents else None
    sent = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape, contents=typed)
    return pb.ModelInferRequest(model_name="colours", inputs=[sent], raw_input_contents=[] if raw is None else [raw])


def raw_bytes(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(content)) + content for content in contents)


def test_typed_inputs_give_typed_outputs(stub: pb_grpc.GRPCInferenceServiceStub) -> None:
    answer = stub.ModelInfer(images([RED, RED], id="x"), timeout=LIMIT_S)
    assert not answer.raw_output_contents
    outputs = {output.name: output for output in answer.outputs}
    assert list(outputs["probabilities"].shape) == [2, 3]
    assert len(outputs["probabilities"].contents.fp32_contents) == 6
    assert outputs["labels"].contents.bytes_contents[0] == b"red"
    assert list(outputs["views"].contents.int_contents) == [1, 1]
    assert len(outputs["tokens"].contents.bytes_contents) == 2


def test_pixels_and_encoded_images_have_the_same_probabilities(stub: pb_grpc.GRPCInferenceServiceStub) -> None:
    noise_HWC = np.random.default_rng(0).integers(0, 255, (70, 91, 3), np.uint8)
    png = encoded(Image.fromarray(noise_HWC), "PNG")
    shape = [1, *noise_HWC.shape]
    answers = [
        stub.ModelInfer(request, timeout=LIMIT_S)
        for request in (
            tensor("images", "BYTES", [1], raw_bytes(png)),
            tensor("images", "BYTES", [1, 1], bytes_contents=[png]),
            tensor("pixels", "UINT8", shape, noise_HWC.tobytes()),
            tensor("pixels", "UINT8", shape, uint_contents=noise_HWC.ravel().tolist()),
        )
    ]
    probabilities = [
        np.frombuffer(answer.raw_output_contents[0], "<f4")
        if answer.raw_output_contents
        else np.float32(answer.outputs[0].contents.fp32_contents)
        for answer in answers
    ]
    for other in probabilities[1:]:
        np.testing.assert_array_equal(other, probabilities[0])


def test_the_size_that_kserve_s_client_adds_to_raw_contents_is_accepted(stub: pb_grpc.GRPCInferenceServiceStub) -> None:
    request = tensor("pixels", "UINT8", [1, 1, 1, 3], b"\xff\0\0")
    request.inputs[0].parameters["binary_data_size"].int64_param = 3
    assert stub.ModelInfer(request, timeout=LIMIT_S).outputs[0].name == "probabilities"


ONE = raw_bytes(RED)
MALFORMED = {
    "no input": (pb.ModelInferRequest(model_name="colours"), "inputs"),
    "two inputs": (
        pb.ModelInferRequest(model_name="colours", inputs=[images([RED]).inputs[0]] * 2),
        "inputs",
    ),
    "an unknown input": (tensor("x", "BYTES", [1], ONE), "inputs[0].name"),
    "another datatype": (tensor("images", "UINT8", [1], ONE), "inputs[0].datatype"),
    "an unknown datatype": (tensor("images", "x" * 1000, [1], ONE), "inputs[0].datatype"),
    "no shape": (tensor("images", "BYTES", [], ONE), "inputs[0].shape"),
    "two columns": (tensor("images", "BYTES", [1, 2], ONE), "inputs[0].shape"),
    "no image": (tensor("images", "BYTES", [0], b""), "inputs[0].shape"),
    "a negative dimension": (tensor("images", "BYTES", [-1], ONE), "inputs[0].shape"),
    "a huge dimension": (tensor("images", "BYTES", [HUGE], ONE), "inputs[0].shape"),
    "100,000 dimensions": (tensor("images", "BYTES", [1] * 100_000, ONE), "inputs[0].shape"),
    "more elements than bytes": (tensor("images", "BYTES", [2], ONE), "raw_input_contents"),
    "fewer elements than bytes": (tensor("images", "BYTES", [1], ONE + ONE), "raw_input_contents"),
    "a length beyond the end": (tensor("images", "BYTES", [1], b"\xff\xff\xff\xff" + RED), "raw_input_contents"),
    "half a length": (tensor("images", "BYTES", [1], b"\1\0"), "raw_input_contents"),
    "nothing": (tensor("images", "BYTES", [1]), "inputs[0].contents.bytes_contents"),
    "too few typed elements": (
        tensor("images", "BYTES", [2], bytes_contents=[RED]),
        "inputs[0].contents.bytes_contents",
    ),
    "other typed elements": (tensor("images", "BYTES", [1], uint_contents=[1]), "inputs[0].contents.uint_contents"),
    "raw and typed": (tensor("images", "BYTES", [1], ONE, bytes_contents=[RED]), "raw_input_contents"),
    "raw for two inputs": (
        images([RED], inputs=tensor("images", "BYTES", [1]).inputs, raw_input_contents=[ONE, ONE]),
        "raw_input_contents",
    ),
    "pixels of two dimensions": (tensor("pixels", "UINT8", [2, 2], b"1234"), "inputs[0].shape"),
    "pixels of four channels": (tensor("pixels", "UINT8", [1, 1, 1, 4], b"1234"), "inputs[0].shape"),
    "pixels without height": (tensor("pixels", "UINT8", [1, 0, 1, 3], b""), "inputs[0].shape"),
    "pixels of negative size": (tensor("pixels", "UINT8", [1, -2, -2, 3], b"1" * 12), "inputs[0].shape"),
    "pixels of huge size": (tensor("pixels", "UINT8", [1, HUGE, HUGE, 3], b"123"), "inputs[0].shape"),
    "too few raw pixels": (tensor("pixels", "UINT8", [1, 2, 2, 3], b"123"), "raw_input_contents"),
    "too few typed pixels": (
        tensor("pixels", "UINT8", [1, 1, 2, 3], uint_contents=[1, 2, 3]),
        "inputs[0].contents.uint_contents",
    ),
    "a pixel of 256": (
        tensor("pixels", "UINT8", [1, 1, 1, 3], uint_contents=[1, 256, 3]),
        "inputs[0].contents.uint_contents",
    ),
    "many typed pixels": (
        tensor("pixels", "UINT8", [1, 1000, 1000, 3], uint_contents=[0] * 3_000_000),
        "inputs[0].contents.uint_contents",
    ),
    "an unknown output": (images([RED], outputs=[{"name": "x"}]), "outputs[0].name"),
    "an output twice": (images([RED], outputs=[{"name": "views"}, {"name": "views"}]), "outputs[1].name"),
    "no class": (
        images([RED], outputs=[{"name": "probabilities", "parameters": {"classification": {"int64_param": 0}}}]),
        "outputs[0].parameters",
    ),
    "classes of an output without": (
        images([RED], outputs=[{"name": "views", "parameters": {"classification": {"int64_param": 1}}}]),
        "outputs[0].parameters",
    ),
    "shared memory": (
        images([RED], outputs=[{"name": "views", "parameters": {"shared_memory_region": {"string_param": "x"}}}]),
        "outputs[0].parameters",
    ),
    "shared memory as input": (
        pb.ModelInferRequest(
            model_name="colours",
            inputs=[
                {
                    "name": "images",
                    "datatype": "BYTES",
                    "shape": [1],
                    "parameters": {"shared_memory_region": {"string_param": "x"}},
                }
            ],
        ),
        "inputs[0].parameters",
    ),
    "an unknown parameter": (images([RED], parameters={"x": {"int64_param": 1}}), "parameters"),
    "a parameter of another type": (images([RED], parameters={"views": {"string_param": "1"}}), "parameters"),
    "an empty parameter": (images([RED], parameters={"adaptive": {}}), "parameters"),
    "no views": (images([RED], parameters={"views": {"int64_param": 0}}), "views"),
    "2^64 - 1 views": (images([RED], parameters={"views": {"uint64_param": 2**64 - 1}}), "views"),
    "no top class": (images([RED], parameters={"top_k": {"int64_param": 0}}), "top_k"),
    "no time": (images([RED], parameters={"timeout": {"int64_param": 0}}), "parameters"),
    "a bad image": (images([RED, b"I am a cat"]), "inputs[0] image 1"),
    "a version that is no number": (images([RED], model_version="newest"), "model_name"),
    "no model": (images([RED], model_name=""), "model_name"),
}


@pytest.mark.parametrize(("request_", "field"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_rejected_with_the_invalid_field(
    stub: pb_grpc.GRPCInferenceServiceStub, request_: pb.ModelInferRequest, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request_, timeout=LIMIT_S)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert len(caught.value.details()) < 500
    details = {detail.TypeName(): detail for detail in rpc_status.from_call(caught.value).details}
    violation = error_details_pb2.BadRequest()
    details["google.rpc.BadRequest"].Unpack(violation)
    assert violation.field_violations[0].field == field
    # in a stream the error is the response to the request, and the next request succeeds
    request_.id = "bad"
    answers = list(stub.ModelStreamInfer(iter([request_, images([RED], id="good")]), timeout=LIMIT_S))
    assert {answer.infer_response.id: bool(answer.error_message) for answer in answers} == {"bad": True, "good": False}


def test_a_model_that_is_not_served_is_not_found(stub: pb_grpc.GRPCInferenceServiceStub) -> None:
    for call, request_ in (
        (stub.ModelInfer, images([RED], model_name="cars")),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name="cars")),
        (stub.ModelConfig, pb.ModelConfigRequest(name="colours", version="9")),
        (stub.ModelStatistics, pb.ModelStatisticsRequest(name="cars")),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request_, timeout=LIMIT_S)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_the_request_s_own_timeout_applies(stub: pb_grpc.GRPCInferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(images([RED] * 64, parameters={"timeout": {"int64_param": 1}}), timeout=LIMIT_S)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
