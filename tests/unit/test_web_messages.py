"""JSON of the HTTP API: that of protobuf's own library."""

import json
import struct

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from serving.api.errors import ApiError, invalid
from serving.api.status import from_status, to_status
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.web.messages import parse_json, shortest_float, to_json


def by_library(message: Message) -> object:
    return MessageToDict(message, always_print_fields_with_no_presence=True)


def a_status() -> status_pb2.Status:
    status = to_status(invalid("TOP_K_OUT_OF_RANGE", "top_k is 0", "top_k", least="1"))
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay={"seconds": 1, "nanos": 500_000_000}))
    return status


MESSAGES = [
    pb.ClassifyResponse(),
    pb.ClassifyResponse(
        model="models/pets/versions/1",
        results=[
            pb.ImageResult(prediction=pb.Prediction(token="AX", views=2, classes=[pb.ClassProbability(label="ü")])),
            pb.ImageResult(error=a_status()),
            pb.ImageResult(),
        ],
    ),
    pb.RecordLabelsResponse(results=[pb.LabelResult(recorded=pb.RecordedLabel(label="cats", previous_label=""))]),
    pb.GetStatisticsResponse(
        models=[
            pb.ModelStatistics(
                confusion_matrix=[pb.ConfusionRow(predicted=[0, 2**40])],
                accuracy=pb.Rate(value=0.1, count=3),
                last_label_time={"seconds": 1_700_000_000, "nanos": 1_000_000},
                expected_calibration_error=0.0,
            )
        ]
    ),
    pb.ListModelsResponse(
        models=[pb.Model(state="MODEL_STATE_READY", plan=pb.EnginePlan(latency={"nanos": 1_500_000}))]
    ),
    pb.ClassifyRequest(images=[pb.ImageInput(content=b"\x00\xff")], views=0),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.DESCRIPTOR.name)
def test_the_json_is_that_of_protobufs_library(message: Message) -> None:
    assert json.loads(to_json(message)) == by_library(message)


@given(st.floats(0, 1, width=32))
def test_probabilities_have_as_many_digits_as_in_protobufs_json(probability: float) -> None:
    message = pb.ClassProbability(probability=probability)
    assert json.loads(to_json(message)) == by_library(message)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_shortened_number_is_the_same_in_32_bits(value: float) -> None:
    assert struct.pack("f", shortest_float(value)) == struct.pack("f", value)


def test_an_error_survives_its_way_through_a_status() -> None:
    error = invalid("TOP_K_OUT_OF_RANGE", "top_k is 0", "top_k", least="1")
    found = from_status(to_status(error))
    assert vars(found) == vars(error)


@pytest.mark.parametrize(
    "body",
    [
        rb'{"\ud800": 1}',
        rb'["a\uDFFFb"]',
        rb'{"a": ["\udc00\ud800"]}',
        b'["\xed\xa0\x80"]',
        b'["\xff"]',
        '["a"]'.encode("utf-16"),
    ],
)
def test_json_that_is_no_unicode_text_is_rejected(body: bytes) -> None:
    with pytest.raises(ApiError, match="the body is not JSON"):
        parse_json(body)


def test_json_may_escape_any_character_and_begin_with_a_byte_order_mark() -> None:
    assert parse_json(b"\xef\xbb\xbf" + rb'["\ud83d\ude00", "\\ud800", "\u00e9"]') == ["\U0001f600", r"\ud800", "é"]
