"""What tests ask a server: pictures of one colour, refusals, and how many labels it knows."""

import io
from collections.abc import Callable

import grpc
import pytest
from google.rpc import status_pb2
from PIL import Image

from serving.client import Client

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}


def picture(colour: str, size: int = 80) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), COLOURS[colour]).save(file, "PNG")
    return file.getvalue()


def labelled(client: Client) -> tuple[int, int]:
    """Labels in the statistics, and those of them that were right."""
    models = client.statistics()
    return (
        sum(model.labels for model in models),
        sum(row.predicted[index] for model in models for index, row in enumerate(model.confusion_matrix)),
    )


def refusal(address: str, ask: Callable[[grpc.Channel], object]) -> tuple[grpc.StatusCode, str, list[bytes]]:
    """Code, message and details of how a server refuses."""
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        ask(channel)
    error = refused.value
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    return error.code(), error.details(), [each.value for each in status_pb2.Status.FromString(details).details]
