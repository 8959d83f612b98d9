"""What other programs take of the CPUs is seen, with the CPU; what belongs to the measurement is none of it."""

import os
import subprocess
import sys

from benchmarks.capacity_others import Others, Taken
from tests.support.commands import eventually

BURSTS = """
import os, time
while os.getppid() != 1:
    began = time.thread_time()
    while time.thread_time() < began + 0.06: pass
    time.sleep(0.2)
"""
BUSY = "import os\nprint(flush=True)\nwhile os.getppid() != 1: pass"


def test_a_busy_program_is_seen_on_its_cpu_and_what_is_started_to_measure_is_not() -> None:
    cpu = min(os.sched_getaffinity(0))
    command = ["taskset", "--cpu-list", str(cpu), sys.executable, "-c", BUSY]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as ours,
        subprocess.Popen(command, stdout=subprocess.PIPE) as other,
        Others([other.pid]) as others,
    ):
        try:
            for process in (ours, other):
                assert process.stdout is not None
                process.stdout.readline()

            def seen() -> list[Taken]:
                return [each for each in others.taken if each.pid == other.pid]

            assert eventually(lambda: sum(each.seconds for each in seen()) > 0.2)
            assert {each.cpu for each in seen()} == {cpu}
        finally:
            ours.kill()
            other.kill()
    assert ours.pid not in {each.pid for each in others.taken}
    watching = [each for each in others.taken if each.pid == "thread-self"]
    assert {each.cpu for each in watching} <= os.sched_getaffinity(0)
    assert sum(each.seconds for each in watching) > 0


def test_what_a_program_does_at_a_stretch_is_noted_as_one() -> None:
    cpu = min(os.sched_getaffinity(0))
    command = ["taskset", "--cpu-list", str(cpu), sys.executable, "-c", BURSTS]
    with subprocess.Popen(command) as other, Others([other.pid]) as others:
        try:
            # looks that lie SAMPLE_S apart see 60 ms as three or four pieces
            assert eventually(lambda: any(e.pid == other.pid and 0.05 < e.seconds < 0.1 for e in others.taken))
        finally:
            other.kill()
