"""What tests of the statistics' calls share: a server's stub, predictions, and errors as callers see them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from serving.client import Client, Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.golden.draw import encoded

RED = encoded(Image.new("RGB", (80, 60), "red"), "PNG")


def tokens(client: Client, count: int = 1) -> list[str]:
    """Of so many predictions; each predicted red."""
    results = client.classify([RED] * count).results
    return [result.token for result in results if isinstance(result, Prediction)]


@contextmanager
def stub_of(address: str) -> Iterator[pb_grpc.ClassifierStub]:
    """The calls themselves."""
    with grpc.insecure_channel(address) as channel:
        yield pb_grpc.ClassifierStub(channel)


def record(stub: pb_grpc.ClassifierStub, labels: Sequence[tuple[str, str]]) -> None:
    """Send labels once, however the call ends: other than `Client`, which may try again."""
    inputs = [pb.LabelInput(token=token, label=label) for token, label in labels]
    stub.RecordLabels(pb.RecordLabelsRequest(labels=inputs), timeout=30)


@contextmanager
def refused(code: grpc.StatusCode, reason: str, field: str = "") -> Iterator[None]:
    """A call fails as a whole, with its documented code, reason and field."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() == code
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(caught.value).details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
    assert info.reason == reason
    assert [violation.field for violation in bad.field_violations] == ([field] if field else [])
