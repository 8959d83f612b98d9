"""The capacity model follows the pace of the CPUs, as probes see it."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.capacity_clients import Placement, simulate
from benchmarks.capacity_events import Clock, Cores
from benchmarks.capacity_model import LoopCosts, ReplicaModel
from benchmarks.capacity_probe import PERIOD_S, Probes, slowness
from benchmarks.capacity_simulator import Request
from serving.bundle.manifest import open_bundle
from tests.support.bundles import write_bundle

MODEL = ReplicaModel(
    cpus=1,
    workers=1,
    instances=1,
    max_batch_size=1,
    loop=LoopCosts(request_s=0.001, picture_s=0.0, wake_s=0.0002),
    worker_s=0.0,
    prepare_s=(0.001,),
    engine_s={1: 0.008},
    request_bytes=1.0,
    answer_bytes=1.0,
)


def samples(paces: dict[tuple[float, float], float]) -> np.ndarray:
    """Of a probe that saw these paces in these intervals."""
    return np.array([(at, pace) for (since, until), pace in paces.items() for at in np.arange(since, until, PERIOD_S)])


def test_a_cpu_is_as_slow_as_its_probe_saw_it_beside_the_fits() -> None:
    seen = samples({(100.0, 102.0): 60.0, (110.0, 111.0): 60.0, (111.0, 113.0): 30.0})
    slower = slowness(seen, [(100.0, 102.0)], begin=110.0, seconds=3.0)
    assert slower(0.5) == pytest.approx(1.0)
    assert slower(2.0) == pytest.approx(2.0)
    assert 1.0 < slower(1.0) < 2.0
    assert slower(9.0) == pytest.approx(2.0)  # as it was last seen


def test_of_a_cpu_whose_probe_never_ran_nothing_is_known() -> None:
    nothing = samples({(100.0, 102.0): 60.0})
    assert slowness(nothing, [(100.0, 102.0)], begin=110.0, seconds=3.0)(1.0) == 1.0
    assert slowness(nothing, [(0.0, 1.0)], begin=100.0, seconds=2.0)(1.0) == 1.0


def test_work_that_begins_while_a_cpu_is_slow_takes_longer() -> None:
    clock, ended = Clock(), []
    cores = Cores(clock, 1, lambda at: 1.5 if at >= 10 else 1.0)
    cores.compute(2.0, lambda: ended.append(clock.now))
    clock.at(10.0, lambda: cores.compute(2.0, lambda: ended.append(clock.now)))
    clock.run()
    assert ended == pytest.approx([2.0, 13.0])
    assert cores.busy_s == pytest.approx(5.0)


def test_a_lone_request_wakes_the_loop_twice_and_waits_for_a_slow_machine() -> None:
    def latency_s(*slower: float) -> float:
        placement = Placement(replicas=[0], clients=[None], cpus=[1], slowness=[lambda _, by=by: by for by in slower])
        request = Request(0.0, [0.001])
        simulate(MODEL, [[request]], replicas=1, placement=placement)
        return request.latency_s

    usual_s = 0.001 + 2 * 0.0002 + 0.001 + 0.008
    assert latency_s() == pytest.approx(usual_s)
    assert latency_s(1.3) == pytest.approx(1.3 * usual_s)


def test_a_probe_tells_how_fast_a_real_cpu_computes_rows(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    begin = time.time()
    with Probes(open_bundle(tmp_path / "colours" / "1"), [min(os.sched_getaffinity(0))]) as probes:
        time.sleep(3.0)  # of which its libraries take some
    [seen] = probes.samples
    if not len(seen):
        pytest.skip("the probe had no time to begin")
    at, pace = seen.T
    assert ((begin < at) & (at < time.time())).all()
    assert ((pace > 1) & (pace < 1e6)).all()
