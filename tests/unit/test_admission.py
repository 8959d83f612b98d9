"""What would be answered too late is refused, as far as the pace of the last seconds tells."""

import time

import pytest

from serving.admission import Admission
from serving.callers import Caller
from serving.jobs import QueueFull

GREEDY, POLITE = Caller("greedy", "a"), Caller("polite", "b")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def busy(clock: list[float], *, row_s: float = 0.1, rows: int = 20) -> Admission:
    """One that has answered a row each `row_s` for a while, and has `rows` of the greedy caller's in flight."""
    admission = Admission(1000)
    for _ in range(30):
        admission.enter(GREEDY, 1, 10.0)
        clock[0] += row_s
        admission.leave(GREEDY, 1)
        admission.answered(1, row_s, 0.0, waiting=True)
    admission.enter(GREEDY, rows, None)
    return admission


def test_what_fits_before_its_deadline_is_taken_and_what_does_not_is_refused_with_a_delay(clock: list[float]) -> None:
    admission = busy(clock)
    assert admission.enter(GREEDY, 1, 3.0) == pytest.approx(2.1)
    with pytest.raises(QueueFull, match="deadline is in 1 s") as caught:
        admission.enter(GREEDY, 1, 1.0)
    assert caught.value.retry_after_s == pytest.approx(2.2 - 0.9)
    admission.enter(GREEDY, 1, None)


def test_only_what_is_served_before_counts(clock: list[float]) -> None:
    assert busy(clock).enter(POLITE, 1, 1.0) == pytest.approx(0.2)


def test_before_anything_is_known_all_are_taken(clock: list[float]) -> None:
    admission = Admission(1000)
    admission.enter(GREEDY, 500, None)
    assert admission.enter(GREEDY, 1, 0.001) == 0


def test_alone_one_is_taken_however_short_its_time(clock: list[float]) -> None:
    admission = busy(clock, rows=1)
    admission.leave(GREEDY, 1)
    admission.enter(GREEDY, 1, 0.01)


def test_expectations_that_were_too_short_make_it_careful_and_right_ones_bold_again(clock: list[float]) -> None:
    admission = busy(clock)
    for _ in range(20):
        admission.answered(1, 3.1, 2.1, waiting=False)
    with pytest.raises(QueueFull):
        admission.enter(GREEDY, 1, 3.0)
    for _ in range(60):
        admission.answered(1, 2.1, 2.1, waiting=False)
    admission.enter(GREEDY, 1, 3.0)


def test_callers_that_gave_up_make_it_careful_too(clock: list[float]) -> None:
    admission = busy(clock)
    for _ in range(20):
        admission.given_up(3.1, 2.1)
        admission.given_up(0.5, 2.1)  # went before its time: says nothing
    with pytest.raises(QueueFull):
        admission.enter(GREEDY, 1, 3.0)


def test_the_pace_follows_a_change(clock: list[float]) -> None:
    admission = busy(clock)
    for _ in range(200):
        clock[0] += 0.02
        admission.answered(1, 1.0, 0.0, waiting=True)
    assert admission.enter(GREEDY, 1, 100.0) == pytest.approx(21 * 0.02, rel=0.5)
