"""A worker is bound to its CPU while images queue, unless another process uses the CPU."""

from collections.abc import Collection

import pytest

import serving.batching.affinity
from serving.batching.affinity import FIRST_LEAVE_S, MAX_LEAVE_S, CpuAffinity

ALL, OWN = {3, 5}, {5}


class Thread:
    """A thread whose work takes the time, and gets the share of a CPU, that a test says."""

    def __init__(self) -> None:
        self.now = self.ran = 1000.0
        self.cpus: Collection[int] = ALL
        self.moves = 0
        self.affinity: CpuAffinity

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.ran

    def bind(self, cpus: Collection[int]) -> None:
        self.cpus = set(cpus)
        self.moves += 1

    def work(self, *, queueing: bool, share: float = 0.8, seconds: float = 0.01) -> Collection[int]:
        """Where it worked."""
        self.affinity.begin(queueing=queueing)
        self.now += seconds
        self.ran += share * seconds
        self.affinity.end()
        return self.cpus


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Thread:
    thread = Thread()
    monkeypatch.setattr(serving.batching.affinity, "time", thread)
    monkeypatch.setattr(serving.batching.affinity, "set_thread_affinity", thread.bind)
    monkeypatch.setattr(serving.batching.affinity.os, "sched_getaffinity", lambda _: ALL)
    thread.affinity = CpuAffinity(5)
    return thread


def test_it_is_bound_while_work_queues_and_only_then(thread: Thread) -> None:
    assert thread.work(queueing=False) == ALL
    assert [thread.work(queueing=True) for _ in range(100)] == [OWN] * 100
    assert thread.work(queueing=False) == ALL
    assert thread.moves == 2


def test_it_leaves_a_cpu_that_another_process_uses_for_longer_each_time(thread: Thread) -> None:
    turns = [thread.work(queueing=True, share=0.3) for _ in range(2)]
    assert turns == [OWN, ALL]
    waited = []
    for _ in range(10):
        left = thread.now
        while thread.work(queueing=True, share=0.3) == ALL:
            pass
        waited.append(round(thread.now - left))
    assert waited == [min(FIRST_LEAVE_S * 2**time, MAX_LEAVE_S) for time in range(10)]


def test_a_process_that_used_the_cpu_briefly_is_forgotten(thread: Thread) -> None:
    for _ in range(3):
        while thread.work(queueing=True, share=0.2) == OWN:
            pass
        left = thread.now
        while thread.work(queueing=True) == ALL:
            pass
        assert thread.now - left < 2 * FIRST_LEAVE_S
        for _ in range(20):
            assert thread.work(queueing=True) == OWN


def test_one_slow_turn_changes_nothing(thread: Thread) -> None:
    for _ in range(20):
        assert thread.work(queueing=True) == OWN
    assert thread.work(queueing=True, share=0.4) == OWN
    assert thread.work(queueing=True) == OWN


def test_without_a_cpu_nothing_is_bound(thread: Thread) -> None:
    thread.affinity = CpuAffinity(None)
    for share in (0.1, 0.9):
        assert thread.work(queueing=True, share=share) == ALL
    assert thread.moves == 0
