"""Which part limits a host with a GPU."""

import pytest

from benchmarks.capacity.hosts import ImageCosts, host_capacity

COSTS = ImageCosts(loop_s=0.0003, workers_s=0.001, other_s=0.0002)


def test_a_slow_gpu_limits_its_host() -> None:
    assert host_capacity(COSTS, cpus=8, processes=2, engine=1000) == (1000, "engine")


def test_decoding_limits_a_host_whose_event_loops_have_time() -> None:
    found = host_capacity(COSTS, cpus=8, processes=4, engine=100_000)
    assert found == (pytest.approx(8 / 0.0015), "decode")


def test_one_event_loop_limits_a_host_with_many_cpus() -> None:
    found = host_capacity(COSTS, cpus=64, processes=1, engine=100_000)
    assert found == (pytest.approx(1 / 0.0003), "RPC")


def test_cpus_are_rpc_s_where_it_costs_more_than_decoding() -> None:
    tiny = ImageCosts(loop_s=0.0003, workers_s=0.0001, other_s=0.0002)
    assert host_capacity(tiny, cpus=1, processes=8, engine=100_000)[1] == "RPC"


def test_cpus_for_a_gpu_feed_it() -> None:
    capacity, _ = host_capacity(COSTS, cpus=round(10_000 * COSTS.all_s), processes=16, engine=10_000)
    assert capacity == pytest.approx(10_000)
