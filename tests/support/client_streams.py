"""Streams of the synchronous client, and what their results must be."""

from typing import Any

from serving.client import Client, Prediction, Retry, StreamResult
from tests.support.scripted_server import MODEL
from tests.support.waiting import LIMIT_S

QUICK = Retry(initial_s=0.02, max_s=0.1)


IMAGES = [f"image {number}".encode() for number in range(100)]


def classify(address: str, images: Any = IMAGES, *, timeout_s: float = LIMIT_S, **options: Any) -> list[StreamResult]:
    with Client(address, timeout_s=timeout_s, retry=QUICK) as client:
        return list(client.classify_many(images, **options))


def assert_each_once(results: list[StreamResult], images: list[bytes] = IMAGES) -> None:
    assert sorted(each.index for each in results) == list(range(len(images)))
    for each in results:
        assert isinstance(each.result, Prediction), each
        assert each.result.classes[0][0] == images[each.index].decode()
        assert each.model == MODEL
