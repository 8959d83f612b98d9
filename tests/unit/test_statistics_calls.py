"""Statistics that clients ask for: of versions that are not served any more, and of a time without predictions."""

import asyncio
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from serving.api.errors import ApiError, Code
from serving.api.pawserve.statistics import StatisticsService
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.store import ALL_TIME, Window


class Retired:
    """Statistics of version 1 of pets, which is not served, from the time before second 100."""

    def read(self, model: str | None = None, version: int | None = None, window: Window = ALL_TIME) -> list[Any]:
        if (model, version) != ("pets", 1) or (window.start_ms or 0) > 100_000:
            return []
        return [object()]


def find(resource: str) -> object:
    raise ApiError(Code.NOT_FOUND, "MODEL_NOT_FOUND", "it is not served")


def ask(model: str, start_s: int) -> pb.GetStatisticsResponse:
    store: Any = Retired()
    request = pb.GetStatisticsRequest(model=model, start_time=Timestamp(seconds=start_s))
    return asyncio.run(StatisticsService(store, find, lambda version: None).get(request))


def test_a_retired_version_has_no_statistics_of_a_later_time() -> None:
    assert not ask("models/pets/versions/1", 200).models


def test_a_version_that_never_was_is_not_found() -> None:
    with pytest.raises(ApiError, match="not served"):
        ask("models/pets/versions/2", 200)
