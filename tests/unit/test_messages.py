"""Messages with too many fields are detected before they are parsed, and the largest legitimate ones pass."""

from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from serving.api.open_inference.inputs import MAX_TYPED_PIXELS
from serving.pb.inference import open_inference_pb2 as oip
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.rpc.messages import MAX_FIELDS, has_too_many_fields

TOO_MANY = MAX_FIELDS + 1
Tensor = oip.ModelInferRequest.InferInputTensor


@pytest.mark.parametrize(
    "make",
    [
        lambda: pb.RecordLabelsRequest(labels=[pb.LabelInput(token="t" * 166, label="a class")] * 10_000),
        lambda: pb.ClassifyRequest(images=[pb.ImageInput(content=b"\x0a\x00" * 200_000, label="a class")] * 64),
        lambda: oip.ModelInferRequest(raw_input_contents=[b"\x0a\x00" * 200_000] * 64),
        lambda: oip.ModelInferRequest(
            inputs=[Tensor(contents=oip.InferTensorContents(uint_contents=[1] * 3 * 224 * 224))]
        ),
        lambda: oip.ModelInferRequest(
            inputs=[Tensor(contents=oip.InferTensorContents(uint_contents=[255] * MAX_TYPED_PIXELS))]
        ),
    ],
    ids=["labels", "images", "raw contents", "typed contents", "a million numbers"],
)
def test_the_largest_legitimate_requests_pass(make: Callable[[], Message]) -> None:
    request = make()
    content = request.SerializeToString()
    assert len(content) > 2 * MAX_FIELDS
    assert not has_too_many_fields(content, request.DESCRIPTOR)


@pytest.mark.parametrize(
    "make",
    [
        lambda: pb.RecordLabelsRequest(labels=[pb.LabelInput()] * TOO_MANY),
        lambda: pb.ClassifyRequest(images=[pb.ImageInput()] * TOO_MANY),
        lambda: oip.ModelInferRequest(inputs=[Tensor()] * TOO_MANY),
        lambda: oip.ModelInferRequest(raw_input_contents=[b""] * TOO_MANY),
        lambda: oip.ModelInferRequest(
            inputs=[Tensor(contents=oip.InferTensorContents(bytes_contents=[b""] * TOO_MANY))]
        ),
        lambda: oip.ModelInferRequest(
            inputs=[Tensor(contents=oip.InferTensorContents(uint_contents=[1] * 6 * MAX_TYPED_PIXELS))]
        ),
        lambda: oip.ModelInferRequest(
            inputs=[Tensor(contents=oip.InferTensorContents(int64_contents=[1] * MAX_TYPED_PIXELS))] * 6
        ),
        lambda: oip.ModelInferRequest(inputs=[Tensor(shape=[1] * 6 * MAX_TYPED_PIXELS)]),
        lambda: oip.ModelInferRequest(
            inputs=[Tensor(parameters={str(i): oip.InferParameter() for i in range(TOO_MANY)})]
        ),
    ],
    ids=[
        "labels",
        "images",
        "inputs",
        "raw contents",
        "contents of an input",
        "numbers",
        "numbers of inputs",
        "shape",
        "parameters of an input",
    ],
)
def test_more_entries_than_any_legitimate_request_has_are_detected(make: Callable[[], Message]) -> None:
    request = make()
    assert has_too_many_fields(request.SerializeToString(), request.DESCRIPTOR)


def test_the_scan_of_bytes_that_are_not_a_message_ends() -> None:
    for content in (b"\xff" * 200_000, b"\x80" * 200_000 + b"\x01", b"\x2a\xff\xff\xff\xff\x0f" + bytes(200_000)):
        has_too_many_fields(content, oip.ModelInferRequest.DESCRIPTOR)
