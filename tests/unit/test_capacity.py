"""The closed-form capacity model, and the page of docs/scaling.md that it prints."""

from pathlib import Path

import pytest

from benchmarks.capacity.__main__ import main
from benchmarks.capacity.model import UTILIZATION, Costs, Gpu, gpu_host, limits, replicas_needed

ROOT = Path(__file__).parents[2]
COSTS = Costs(prepare_s=0.001, engine_s=0.003, worker_s=0.0005, request_s=0.0004, image_s=0.0001, image_bytes=50_000)


def test_a_replica_on_cpus_is_limited_by_their_time() -> None:
    found = limits(COSTS, cpus=2)
    assert list(found) == ["CPUs", "event loop"]
    assert found["CPUs"] == pytest.approx(2 / 0.005)
    assert found["event loop"] == pytest.approx(1 / 0.0005)


def test_several_images_in_a_request_share_its_cost_and_views_add_rows() -> None:
    assert limits(COSTS, cpus=1, images=4)["event loop"] == pytest.approx(4 / 0.0008)
    assert limits(COSTS, cpus=1, views=5)["CPUs"] == pytest.approx(1 / (0.0005 + 0.0015 + 5 * 0.003))


def test_on_a_gpu_rows_cost_the_cpus_nothing() -> None:
    found = limits(COSTS, cpus=8, views=2, gpu=Gpu())
    assert found["CPUs"] == pytest.approx(8 / 0.002)
    assert found["GPU"] == pytest.approx(Gpu().served_rows_per_s() / 2)


def test_engine_calls_of_a_gpu_are_linear_in_their_rows() -> None:
    assert Gpu(batch=1).served_rows_per_s() == pytest.approx(1 / 0.67e-3)
    assert Gpu(batch=512).served_rows_per_s() == pytest.approx(9765)
    assert 1 / 0.67e-3 < Gpu(batch=64).served_rows_per_s() < 9765


def test_a_gpu_s_host_has_enough_cpus_and_processes() -> None:
    host = gpu_host(COSTS, Gpu(), images=1)
    assert limits(COSTS, cpus=host.cpus, gpu=Gpu())["CPUs"] >= host.images_per_s
    assert limits(COSTS, cpus=host.cpus - 1, gpu=Gpu())["CPUs"] < host.images_per_s
    assert host.images_per_s <= UTILIZATION * host.processes * host.loop_images_per_s


def test_replicas_stay_below_the_utilization() -> None:
    assert replicas_needed(70, 100) == 1
    assert replicas_needed(71, 100) == 2


def test_the_page_on_scaling_shows_what_its_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--images-per-s", "500", "--cpus", "1"])
    page = (ROOT / "docs" / "scaling.md").read_text()
    missing = [line for line in capsys.readouterr().out.splitlines() if line not in page]
    assert not missing


def test_costs_that_are_not_positive_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--prepare-s", "0"])
    assert "0 is not greater than 0" in capsys.readouterr().err
