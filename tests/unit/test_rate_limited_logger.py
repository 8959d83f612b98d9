"""What goes wrong at every call is logged at once, then once a minute with how often it did."""

import logging

import pytest

from serving.rpc.api_errors import to_api_error
from serving.statistics.store import StatisticsUnavailable
from serving.system import logs as repeats
from serving.system.logs import MOST_AT_ONCE, RateLimitedLogger


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, to be moved by the test."""
    now = [1000.0]
    monkeypatch.setattr(repeats.time, "monotonic", lambda: now[0])
    return now


def test_one_line_a_minute_says_how_often(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    trouble = RateLimitedLogger(logging.getLogger("pawserve.test"), logging.ERROR)
    for second in range(130):
        clock[0] = 1000.0 + second
        trouble.log("the disk is full")
    trouble.end()
    trouble.log("the disk is full")
    assert [record.getMessage() for record in caplog.records] == [
        "the disk is full",
        "the disk is full (and 59 times since the line before)",
        "the disk is full (and 59 times since the line before)",
        "the disk is full",
    ]


def test_another_cause_is_said_at_once_but_not_any_number_of_them(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    trouble = RateLimitedLogger(logging.getLogger("pawserve.test"), logging.ERROR)
    for message in ("the connection ended", "the password is wrong", "the connection ended"):
        trouble.log(message)
    assert [record.getMessage() for record in caplog.records] == ["the connection ended", "the password is wrong"]
    for number in range(1000):
        trouble.log(f"{number} labels wait")
    assert len(caplog.records) == MOST_AT_ONCE


@pytest.mark.parametrize("error", [StatisticsUnavailable("the disk is full"), MemoryError("a large picture")])
def test_a_thousand_calls_refused_for_want_of_disk_or_memory_are_one_line(
    clock: list[float], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    clock[0] += 1e6  # whatever other tests have logged
    for _ in range(1000):
        to_api_error(error)
    assert len(caplog.records) == 1
    assert str(error) in caplog.text
