"""Calls that the tests share: images of one colour, errors, and the number of labels."""

import io
from collections.abc import Callable

import grpc
import pytest
from google.rpc import status_pb2
from PIL import Image

from serving.client import Client

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}


def image(colour: str, size: int = 80) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), COLOURS[colour]).save(file, "PNG")
    return file.getvalue()


def count_labels(client: Client) -> tuple[int, int]:
    """Number of labels in the statistics, and of correct predictions among them."""
    models = client.statistics()
    return (
        sum(model.labels for model in models),
        sum(row.predicted[index] for model in models for index, row in enumerate(model.confusion_matrix)),
    )


def error_of(address: str, call: Callable[[grpc.Channel], object]) -> tuple[grpc.StatusCode, str, list[bytes]]:
    """Code, message and details of the error that a call ends with."""
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        call(channel)
    error = caught.value
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    return error.code(), error.details(), [each.value for each in status_pb2.Status.FromString(details).details]
