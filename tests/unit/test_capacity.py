"""The capacity simulator: it agrees with queueing theory where that has closed forms, and loses nothing where not."""

from dataclasses import replace
from math import factorial, log
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.capacity_clients import BALANCES, Placement, Summary, poisson, simulate
from benchmarks.capacity_events import SLICE_S, Clock, Cores, Loop
from benchmarks.capacity_model import LoopCosts, ReplicaModel, from_json, load, to_json
from benchmarks.capacity_simulator import Request

NOTHING = LoopCosts(request_s=1e-9, picture_s=0.0, wake_s=0.0)
EXPONENTIAL = tuple(-log(1 - (i + 0.5) / 1000) for i in range(1000))
"""Values that are distributed exponentially with mean 1."""
CONSTANT_10_MS = ReplicaModel(
    cpus=2,  # one for the loop, or answers would wait for the worker's slice
    workers=1,
    instances=1,
    max_batch_size=1,
    max_rows=10**6,
    loop=NOTHING,
    worker_s=0.0,
    prepare_s=(1e-9,),
    engine_s={1: 0.01},
    request_bytes=1.0,
    answer_bytes=1.0,
)
LIKE_A_SERVER = replace(
    CONSTANT_10_MS,
    cpus=1,
    max_batch_size=4,
    loop=LoopCosts(request_s=0.0004, picture_s=0.0001, wake_s=0.0001),
    prepare_s=(0.0005, 0.001, 0.0015),
    engine_s={1: 0.003, 4: 0.011},
)


def mean_latency_s(model: ReplicaModel, *, rate: float, seconds: float, replicas: int = 1) -> float:
    arrivals = poisson(model, rate=rate, seconds=seconds, clients=1, seed=1)
    simulate(model, arrivals, replicas=replicas, seed=1)
    return fmean(request.latency_s for request in arrivals[0])


@pytest.mark.parametrize("load", [0.3, 0.5])
def test_random_services_wait_as_long_as_in_an_m_m_1_queue(load: float) -> None:
    model = replace(CONSTANT_10_MS, spread=EXPONENTIAL)
    assert mean_latency_s(model, rate=100 * load, seconds=150) == pytest.approx(0.01 / (1 - load), rel=0.1)


def test_their_p99_is_that_of_an_m_m_1_queue() -> None:
    model = replace(CONSTANT_10_MS, spread=EXPONENTIAL)
    arrivals = poisson(model, rate=50, seconds=200, clients=1, seed=2)
    summary = simulate(model, arrivals, replicas=1)
    assert summary.p99_ms == pytest.approx(1000 * log(100) / (100 - 50), rel=0.15)  # sojourn times are exponential
    assert summary.busy == pytest.approx(0.5 / 2, abs=0.01)


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_constant_services_wait_as_long_as_in_an_m_d_1_queue(load: float) -> None:
    # Pollaczek and Khinchine: the mean wait is rho s / (2 (1 - rho))
    expected_s = 0.01 * (1 + load / (2 * (1 - load)))
    assert mean_latency_s(CONSTANT_10_MS, rate=100 * load, seconds=100) == pytest.approx(expected_s, rel=0.08)


def test_three_engines_on_three_cpus_wait_as_long_as_in_an_m_m_c_queue() -> None:
    engines, offered = 3, 2.1
    model = replace(CONSTANT_10_MS, cpus=engines + 1, workers=engines, instances=engines, spread=EXPONENTIAL)
    waiting = offered**engines / factorial(engines) / (1 - offered / engines)  # Erlang C
    waiting /= sum(offered**k / factorial(k) for k in range(engines)) + waiting
    expected_s = 0.01 * (1 + waiting / (engines - offered))
    assert mean_latency_s(model, rate=100 * offered, seconds=50) == pytest.approx(expected_s, rel=0.1)


def test_threads_share_cpus_evenly() -> None:
    clock, ended = Clock(), {}
    cores = Cores(clock, 2)
    for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        cores.compute(seconds, lambda name=name: ended.setdefault(name, clock.now))
    clock.run()
    # two CPUs for three until a is done; then one each
    assert ended == pytest.approx({"a": 1.5, "b": 2.5, "c": 3.5}, abs=2 * SLICE_S)
    assert cores.busy_s == pytest.approx(6.0)


def test_a_thread_that_wakes_waits_for_the_end_of_a_slice_and_one_that_goes_on_keeps_its_cpu() -> None:
    clock, ended = Clock(), {}
    cores = Cores(clock, 1)
    step = 0.75 * SLICE_S

    def go_on() -> None:
        cores.compute(step, lambda: ended.setdefault("second step", clock.now), "worker")

    cores.compute(step, go_on, "worker")
    clock.at(0.1 * step, lambda: cores.compute(step, lambda: ended.setdefault("woken", clock.now), "loop"))
    clock.run()
    assert ended == {"woken": pytest.approx(SLICE_S + step), "second step": pytest.approx(3 * step)}


def test_only_a_cpu_that_had_nothing_to_do_has_rested() -> None:
    clock = Clock()
    cores = Cores(clock, 1)
    clock.at(1.0, lambda: cores.interrupt(0.5))
    clock.at(2.0, lambda: cores.compute(0.25, lambda: None))
    clock.run()
    assert cores.idle_s == pytest.approx(1.5)


def test_what_other_programs_take_is_waited_for_but_is_no_use_of_the_servers() -> None:
    def latencies(interruptions: list[tuple[float, float]]) -> tuple[list[float], float]:
        requests = [Request(due_s, [1e-9]) for due_s in (0.1, 0.2)]
        placement = Placement(replicas=[0], clients=[None], cpus=[1], interruptions=[interruptions])
        summary = simulate(CONSTANT_10_MS, [requests], replicas=1, placement=placement)
        return [request.latency_s for request in requests], summary.busy

    undisturbed, busy = latencies([])
    disturbed, busy_too = latencies([(0.09, 0.03), (0.15, 0.03)])
    assert disturbed[0] - undisturbed[0] > 0.015  # of the first 30 ms, ten were over when it came; then both take turns
    assert disturbed[1] == pytest.approx(undisturbed[1])
    assert busy_too == pytest.approx(busy * (0.1 + undisturbed[1]) / (0.1 + disturbed[1]), rel=0.01)


def test_a_busy_loop_is_woken_less_often() -> None:
    clock, ended = Clock(), []
    loop = Loop(Cores(clock, 1), wake_s=1.0)
    for _ in range(3):
        loop.do(2.0, lambda: ended.append(clock.now))
    clock.at(20.0, lambda: loop.do(2.0, lambda: ended.append(clock.now)))
    clock.run()
    assert ended == pytest.approx([3.0, 5.0, 7.0, 23.0])


@settings(max_examples=25, deadline=None)
@given(
    balance=st.sampled_from(BALANCES),
    replicas=st.integers(1, 3),
    workers=st.integers(1, 4),
    instances=st.integers(1, 4),
    on_gpu=st.booleans(),
    max_rows=st.integers(1, 60),
    pictures=st.integers(1, 5),
    views=st.integers(1, 5),
    rate=st.floats(1, 500),
    seed=st.integers(0, 99),
)
def test_nothing_is_lost_and_the_same_seed_gives_the_same_answer(
    balance: str,
    replicas: int,
    workers: int,
    instances: int,
    on_gpu: bool,
    max_rows: int,
    pictures: int,
    views: int,
    rate: float,
    seed: int,
) -> None:
    model = replace(LIKE_A_SERVER, cpus=2, workers=workers, instances=instances, on_gpu=on_gpu, max_rows=max_rows)

    def once() -> tuple[Summary, list[tuple[float, bool]]]:
        arrivals = poisson(model, rate=rate, seconds=0.4, clients=3, seed=seed, pictures=pictures, views=views)
        arrivals[0].insert(0, Request(0.0, [0.001] * pictures, views))
        summary = simulate(model, arrivals, replicas=replicas, balance=balance, seed=seed)
        return summary, [(request.done_s, request.refused) for each in arrivals for request in each]

    summary, outcomes = once()
    assert summary.answered + summary.refused == summary.sent == len(outcomes)
    assert summary.refused == sum(refused for _, refused in outcomes)
    if pictures * views > max_rows:
        assert summary.answered == 0
    assert once() == (summary, outcomes)


def test_more_than_the_capacity_is_answered_at_the_capacity_and_bounded() -> None:
    limits = LIKE_A_SERVER.limits()
    assert next(iter(limits)) == "CPUs"
    arrivals = poisson(LIKE_A_SERVER, rate=3 * limits["CPUs"], seconds=3, clients=4, seed=0)
    summary = simulate(replace(LIKE_A_SERVER, max_rows=100), arrivals, replicas=1)
    assert summary.refused > 0
    # refusals cost what reading and answering cost, so that fewer are answered than the capacity without any
    assert 0.6 * limits["CPUs"] < summary.requests_per_s <= 1.02 * limits["CPUs"]
    assert summary.rows_per_call > 3.5
    unbounded = simulate(
        LIKE_A_SERVER, poisson(LIKE_A_SERVER, rate=2 * limits["CPUs"], seconds=2, clients=1, seed=0), replicas=1
    )
    assert unbounded.refused == 0
    assert unbounded.requests_per_s == pytest.approx(limits["CPUs"], rel=0.03)


def test_a_gpu_computes_while_the_cpus_prepare() -> None:
    on_cpu = replace(LIKE_A_SERVER, cpus=2, workers=2, instances=2)
    on_gpu = replace(LIKE_A_SERVER, cpus=2, workers=4, instances=2, on_gpu=True, engine_s={1: 0.001, 4: 0.002})
    assert on_gpu.capacity() > 2 * on_cpu.capacity()
    arrivals = poisson(on_gpu, rate=1.5 * on_gpu.capacity(), seconds=1, clients=1, seed=0)
    summary = simulate(replace(on_gpu, max_rows=10**6), arrivals, replicas=1)
    assert summary.requests_per_s == pytest.approx(on_gpu.capacity(), rel=0.05)


def test_two_replicas_on_one_machine_share_its_cpu_with_the_clients_there() -> None:
    beside = Placement(replicas=[0, 0], clients=[0], cpus=[1])
    client = LoopCosts(request_s=0.004, picture_s=0.0, wake_s=0.0)
    arrivals = poisson(LIKE_A_SERVER, rate=400, seconds=2, clients=1, seed=0)
    summary = simulate(LIKE_A_SERVER, arrivals, replicas=2, client=client, placement=beside)
    both_s = 1 / LIKE_A_SERVER.capacity() + client.seconds(1)
    assert summary.requests_per_s == pytest.approx(1 / both_s, rel=0.1)


def test_clients_that_look_at_their_own_requests_wait_least_and_those_bound_to_one_replica_longest() -> None:
    model = replace(CONSTANT_10_MS, spread=EXPONENTIAL)

    def p99_ms(balance: str) -> float:
        arrivals = poisson(model, rate=240, seconds=10, clients=2, seed=3)
        return simulate(model, arrivals, replicas=4, balance=balance, seed=3).p99_ms

    assert p99_ms("least_loaded") < 0.9 * p99_ms("round_robin") < p99_ms("per_connection") / 2


def test_an_answer_is_read_and_then_heard_of_and_each_waits_for_its_turn_on_a_busy_cpu() -> None:
    client = LoopCosts(request_s=0.0004, picture_s=0.0, wake_s=0.0, read_s=0.0003)

    def latency_s(*interruptions: tuple[float, float]) -> float:
        own = Placement(replicas=[0], clients=[1], cpus=[1, 1], interruptions=[[], interruptions])
        request = Request(0.0, [0.001])
        simulate(LIKE_A_SERVER, [[request]], replicas=1, client=client, placement=own)
        return request.latency_s

    alone_s = latency_s()
    shared_s = latency_s((0.0002, 0.05))  # with somebody who wants the client's CPU all the time
    assert SLICE_S < shared_s - alone_s <= 2 * SLICE_S, "two turns, of which the first may come in the middle of one"


def test_a_client_with_one_picture_does_not_wait_behind_all_of_anothers() -> None:
    many = [Request(0.0, [0.001]) for _ in range(100)]
    one = [Request(0.02, [0.001])]
    simulate(replace(LIKE_A_SERVER, cpus=2), [many, one], replicas=1)
    assert one[0].latency_s < 0.3 * max(request.latency_s for request in many)


def test_a_slow_picture_holds_up_none_of_its_workers_share() -> None:
    model = replace(LIKE_A_SERVER, cpus=3, workers=2, instances=2)
    requests = [Request(0.0, [1.0 if number == 8 else 0.001]) for number in range(20)]
    simulate(model, [requests], replicas=1)
    slow = requests.pop(8)
    assert slow.latency_s > 1
    assert max(request.latency_s for request in requests) < 0.2


def test_clients_begin_with_the_replica_that_they_are_told() -> None:
    requests = [[Request(due_s, [0.001]) for due_s in (0.0, 0.1, 0.2)] for _ in range(2)]
    simulate(LIKE_A_SERVER, requests, replicas=2, first=[1, 0])
    assert [[request.replica for request in each] for each in requests] == [[1, 0, 1], [0, 1, 0]]


def test_what_cannot_be_simulated_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no requests"):
        simulate(LIKE_A_SERVER, [[]], replicas=1)
    with pytest.raises(ValueError, match="there are round_robin"):
        simulate(LIKE_A_SERVER, [[Request(0.0, [0.001])]], replicas=1, balance="random")
    with pytest.raises(ValueError, match="workers is 0"):
        replace(LIKE_A_SERVER, workers=0)
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(ValueError, match="no replica's model"):
        load(tmp_path / "other.json")


def test_a_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    LIKE_A_SERVER.save(tmp_path / "model.json")
    assert load(tmp_path / "model.json") == LIKE_A_SERVER
    assert "network" not in LIKE_A_SERVER.limits()
    assert from_json({**to_json(LIKE_A_SERVER), "nic_bytes_per_s": 1e9}).limits()["network"] == 1e9


def test_a_worker_that_has_rested_needs_longer() -> None:
    model = replace(CONSTANT_10_MS, rested_s=((0.1, 0.002), (0.2, 0.006)))
    assert [model.rested_seconds(idle_s) for idle_s in (0.0, 0.05, 0.15, 9.0)] == pytest.approx(
        [0, 0.001, 0.004, 0.006]
    )
    requests = [Request(due_s, [1e-9]) for due_s in (1.0, 1.005, 1.12)]
    simulate(model, [requests], replicas=1)
    assert [request.latency_s for request in requests] == pytest.approx([0.016, 0.021, 0.012 - 0.002 * 0.06], abs=1e-5)


def test_engine_calls_between_and_beyond_what_was_measured_are_linear() -> None:
    assert [LIKE_A_SERVER.engine_seconds(rows) for rows in (1, 2, 4, 7)] == pytest.approx(
        [0.003, 0.003 + 0.008 / 3, 0.011, 0.019]
    )
