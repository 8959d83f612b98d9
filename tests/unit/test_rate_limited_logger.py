"""A problem that occurs at every call is logged at once, then once in an interval with how often it occurred."""

import logging
import secrets

import pytest

from serving.api.errors import to_api_error
from serving.statistics.store import StatisticsUnavailable
from serving.system.logs import RateLimitedLogger


@pytest.fixture
def clock() -> list[float]:
    """Seconds, which the test advances."""
    return [1000.0]


@pytest.fixture
def problems(clock: list[float]) -> RateLimitedLogger:
    logger = logging.getLogger("pawserve.test")
    return RateLimitedLogger(logger, logging.ERROR, clock=lambda: clock[0])


def test_a_repeated_message_is_logged_once_in_an_interval_with_its_count(
    problems: RateLimitedLogger, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(130):
        clock[0] = 1000.0 + second
        problems.log("the disk is full")
    problems.reset()
    problems.log("the disk is full")
    assert [record.getMessage() for record in caplog.records] == [
        "the disk is full",
        "the disk is full (and 59 more since the previous line)",
        "the disk is full (and 59 more since the previous line)",
        "the disk is full",
    ]


def test_other_messages_are_logged_at_once_but_only_a_few_of_them(
    problems: RateLimitedLogger, caplog: pytest.LogCaptureFixture
) -> None:
    for message in ("the connection ended", "the password is wrong", "the connection ended"):
        problems.log(message)
    assert [record.getMessage() for record in caplog.records] == ["the connection ended", "the password is wrong"]
    for number in range(1000):
        problems.log(f"{number} labels wait")
    assert len(caplog.records) == 8


@pytest.mark.parametrize("kind", [StatisticsUnavailable, MemoryError])
def test_a_thousand_calls_that_fail_for_lack_of_disk_or_memory_are_one_line(
    caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    message = secrets.token_hex(8)  # unlike what other tests have logged
    for _ in range(1000):
        to_api_error(kind(message))
    assert len(caplog.records) == 1
    assert message in caplog.text
