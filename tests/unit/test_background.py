"""Work in the background: it runs in order, and a stop does not wait for what hangs."""

from queue import SimpleQueue
from threading import Event

from serving.shadows.background import BackgroundThread
from tests.support.waiting import LIMIT_S


def test_functions_run_one_after_the_other() -> None:
    done: SimpleQueue[int] = SimpleQueue()
    thread = BackgroundThread("test")
    for number in range(100):
        thread.submit(lambda number=number: done.put(number))  # type: ignore[misc]
    assert [done.get(timeout=LIMIT_S) for _ in range(100)] == list(range(100))
    assert thread.close(LIMIT_S)


def test_a_function_that_hangs_is_left_behind() -> None:
    hanging = Event()
    thread = BackgroundThread("test")
    thread.submit(lambda: bool(hanging.wait(LIMIT_S)) and None)
    assert not thread.close(0.01)
    hanging.set()
    assert thread.close(LIMIT_S)
