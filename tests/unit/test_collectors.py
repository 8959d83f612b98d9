"""The collector of statistics is read by several scrapes at once, from a store that may fail."""

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import cast

import pytest

from serving.observability.collectors import StatisticsCollector
from serving.statistics.store import StatisticsStore, VersionStatistics
from tests.support.waiting import LIMIT_S


class Store:
    """Statistics without versions; fails while there is an error."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.reads = 0

    def read(self) -> list[VersionStatistics]:
        self.reads += 1
        if self.error:
            raise self.error
        return []


@pytest.fixture
def switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def collector_of(store: Store, min_age_s: float) -> StatisticsCollector:
    return StatisticsCollector(cast(StatisticsStore, store), min_age_s=min_age_s, max_read_share=float("inf"))


def up(collector: StatisticsCollector) -> float:
    return next(iter(collector.collect())).samples[0].value


@pytest.mark.usefixtures("switching")
def test_parallel_scrapes_share_one_read(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(8) as pool:
        for _ in range(100):
            store, together = Store(), Barrier(8)
            collector = collector_of(store, 3600)

            def scrape(collector: StatisticsCollector = collector, together: Barrier = together) -> float:
                together.wait(LIMIT_S)
                return up(collector)

            assert [each.result() for each in [pool.submit(scrape) for _ in range(8)]] == [1] * 8
            collector.close()
            assert store.reads == 1
    assert not caplog.records


@pytest.mark.parametrize("error", [OSError("no disk"), TimeoutError("the database does not answer")])
def test_a_failed_read_is_reported_and_repeated_when_it_is_due(error: Exception) -> None:
    store = Store()
    collector = collector_of(store, 0)
    assert up(collector) == 1
    store.error = error
    assert up(collector) == 0
    assert up(collector) == 0
    store.error = None
    assert up(collector) == 1
    assert store.reads == 4
    collector.close()


def test_scrapes_before_a_read_is_due_report_the_last_one() -> None:
    store = Store()
    collector = collector_of(store, 3600)
    assert [up(collector) for _ in range(5)] == [1] * 5
    assert store.reads == 1
    collector.close()
