"""An engine in a process of its own: it computes the same, can be paused, and may crash."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from numpy.typing import NDArray

import serving.engine.separate as separate
from serving.bundle.folder import open_bundle
from serving.bundle.manifest import Bundle
from serving.engine.base import EngineLayout, InferenceError
from serving.engine.onnx import OnnxModel
from serving.engine.separate import SeparateEngine
from tests.support.bundles import write_bundle
from tests.support.commands import ROOT
from tests.support.shadows import failing_graph
from tests.support.waiting import LIMIT_S, eventually

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc, SCHED_IDLE and PR_SET_PDEATHSIG are Linux's")

ONE = EngineLayout(instances=1, threads=1, max_batch_size=4)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(write_bundle(tmp_path / "models"))


@pytest.fixture
def engine(bundle: Bundle) -> Iterator[SeparateEngine]:
    engine = SeparateEngine(bundle.read(bundle.artifact("fp32")), lambda: bundle.read(bundle.artifact("fp32")), 4)
    yield engine
    engine.close()


def batch(rows: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, 64, 64, 3), np.uint8)


def state_of(pid: int) -> str:
    """One letter, proc_pid_stat(5): T is stopped; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_the_graph_is_read_once_for_this_process_and_that_of_the_engine(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, files = Bundle.read, []
    monkeypatch.setattr(Bundle, "read", lambda self, artifact: files.append(artifact.file) or read(self, artifact))
    model = OnnxModel(bundle, bundle.artifact("fp32"))
    with closing(model.make_separate_engine(4)) as engine:
        np.testing.assert_array_equal(engine.run(batch(2)), model.make_engines(ONE)[0].run(batch(2)))
    assert files == [bundle.artifact("fp32").file]


def test_it_computes_the_bits_of_an_engine_of_this_process(bundle: Bundle, engine: SeparateEngine) -> None:
    (here,) = OnnxModel(bundle, bundle.artifact("fp32")).make_engines(ONE)
    for rows in (1, 4, 3):
        probabilities_NK = engine.run(batch(rows, rows))
        assert probabilities_NK.dtype == np.float32
        np.testing.assert_array_equal(probabilities_NK, here.run(batch(rows, rows)))
    np.testing.assert_array_equal(engine.run(batch(6)[::2]), here.run(batch(6)[::2]))  # not contiguous


@linux
def test_a_paused_engine_computes_nothing_until_it_is_resumed(engine: SeparateEngine) -> None:
    expected = engine.run(batch(2))
    engine.pause()
    engine.pause()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(engine.run, batch(2))
        assert eventually(lambda: state_of(engine.pid) == "T")
        assert not running.done()
        engine.resume()
        np.testing.assert_array_equal(running.result(LIMIT_S), expected)
    engine.resume()
    np.testing.assert_array_equal(engine.run(batch(2)), expected)


@linux
def test_the_lowest_priority_is_the_process_s_alone(engine: SeparateEngine) -> None:
    engine.lower_priority()
    assert os.sched_getscheduler(engine.pid) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert os.getpgid(engine.pid) != os.getpgid(0)  # Ctrl-C in a terminal does not reach it


def test_a_batch_that_cannot_be_computed_is_an_error_and_the_next_one_is_computed() -> None:
    engine = SeparateEngine(failing_graph(64, how="raises"), lambda: failing_graph(64, how="raises"), 4)
    try:
        with pytest.raises(InferenceError, match="Gather"):
            engine.run(np.full((1, 64, 64, 3), 255, np.uint8))
        assert engine.run(np.full((1, 64, 64, 3), 127, np.uint8)).shape == (1, 3)
    finally:
        engine.close()


def test_a_process_that_crashed_is_started_again_but_not_all_the_time(
    engine: SeparateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engine.run(batch(1))
    os.kill(engine.pid, signal.SIGSEGV)
    with pytest.raises(InferenceError, match=r"the process of the engine was ended by SIGSEGV"):
        engine.run(batch(1))
    with pytest.raises(InferenceError, match=r"was ended by SIGSEGV; restart in \d+ s"):
        engine.run(batch(1))
    monkeypatch.setattr(separate, "RESTART_S", 0.0)
    np.testing.assert_array_equal(engine.run(batch(1)), expected)


@linux
def test_a_graph_that_is_damaged_when_the_process_is_started_again_is_an_error(
    bundle: Bundle, engine: SeparateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.run(batch(1))
    (bundle.folder / bundle.artifact("fp32").file).write_bytes(b"damaged")
    os.kill(engine.pid, signal.SIGKILL)
    assert eventually(lambda: state_of(engine.pid) == "")
    monkeypatch.setattr(separate, "RESTART_S", 0.0)
    for _ in range(2):
        with pytest.raises(InferenceError, match="cannot be started again: "):
            engine.run(batch(1))
    monkeypatch.setattr(separate, "RESTART_S", LIMIT_S)
    with pytest.raises(InferenceError, match=r"restart in \d+ s"):
        engine.run(batch(1))


def test_closing_ends_a_paused_process_and_the_call_that_waits_for_it(engine: SeparateEngine) -> None:
    engine.run(batch(1))
    engine.pause()
    errors: list[Exception] = []

    def run() -> None:
        try:
            engine.run(batch(1))
        except InferenceError as error:
            errors.append(error)

    thread = Thread(target=run)
    thread.start()
    engine.close()
    thread.join(LIMIT_S)
    assert len(errors) == 1
    engine.close()


PARENT = """
import sys, time
import numpy as np
from serving.engine.separate import SeparateEngine
from tests.support.shadows import failing_graph
engine = SeparateEngine(failing_graph(64, how="nan"), lambda: failing_graph(64, how="nan"), 4)
engine.run(np.full((1, 64, 64, 3), 127, np.uint8))
if sys.argv[1] == "paused":
    engine.pause()
print(engine.pid, flush=True)
time.sleep(3600)
"""


@linux
@pytest.mark.parametrize("state", ["paused", "waiting"])
def test_it_ends_with_a_parent_that_is_killed(state: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, state], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert state_of(pid) not in ("", "Z")
        parent.kill()
    assert eventually(lambda: state_of(pid) in ("", "Z"))
