"""Work of the lowest priority: it runs in order, and the other threads of the process keep their priority."""

import os
import sys
from queue import SimpleQueue
from threading import Event

import pytest

from serving.shadows.background import BackgroundThread
from tests.support.waiting import LIMIT_S


def test_functions_run_one_after_the_other() -> None:
    done: SimpleQueue[int] = SimpleQueue()
    thread = BackgroundThread("test")
    for number in range(100):
        thread.submit(lambda number=number: done.put(number))  # type: ignore[misc]
    assert [done.get(timeout=LIMIT_S) for _ in range(100)] == list(range(100))
    assert thread.close(LIMIT_S)


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
def test_only_the_thread_itself_has_the_lowest_priority() -> None:
    found: SimpleQueue[int] = SimpleQueue()
    before = os.sched_getscheduler(0)
    thread = BackgroundThread("test")
    thread.submit(lambda: found.put(os.sched_getscheduler(0)))
    assert found.get(timeout=LIMIT_S) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == before == os.SCHED_OTHER
    assert thread.close(LIMIT_S)


def test_a_function_that_hangs_is_left_behind() -> None:
    hanging = Event()
    thread = BackgroundThread("test")
    thread.submit(lambda: bool(hanging.wait(LIMIT_S)) and None)
    assert not thread.close(0.01)
    hanging.set()
    assert thread.close(LIMIT_S)
