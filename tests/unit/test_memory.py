"""The memory of one picture serves the next: a process that decodes maps little memory afresh."""

import subprocess
import sys
from pathlib import Path

import pytest

PHOTO = Path(__file__).parents[1] / "golden" / "large.jpg"

PROGRAM = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from serving.memory import keep_freed_memory
from serving.preprocess import Preprocess
if sys.argv[1] == "kept":
    keep_freed_memory()
photo, preprocess = Path(sys.argv[2]).read_bytes(), Preprocess()
with ThreadPoolExecutor(2) as pool:
    faults = []
    for pictures in (30, 100):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in pool.map(preprocess.canvas, [photo] * pictures):
            pass
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of other systems has no such settings")
def test_freed_memory_is_used_again() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", PROGRAM, how, str(PHOTO)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)

    assert faults("kept") < faults("as it is") / 4
