"""`make demo` with a few drawings as data."""

import json
import signal
from pathlib import Path

import pytest

from examples.demo import calls, main
from tests.support.commands import WarmProcess, run_cold
from tests.support.http import ask


def demo_main(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_trains_exports_serves_labels_and_shows_statistics(drawings: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    finished = run_cold("examples.demo", "--out", out, "--data", drawings)
    assert finished.returncode == 0, finished.stderr
    facts = json.loads(finished.stdout.splitlines()[-1])
    assert facts["labelled"] == 16
    assert facts["served"] == 3 * 16 + 4  # the request with curl comes after the statistics
    assert '{"model": "models/pets/versions/1", "results": [{"prediction"' in finished.stderr
    assert f"{facts['page']}/v1/classify" in finished.stderr
    assert "make demo KEEP=1" in finished.stderr
    assert [row["views"] for row in facts["test_time"]][0] == "1.00"
    assert "views an image" in finished.stderr
    assert sum(map(sum, facts["confusion_matrix"])) == 16
    assert facts["accuracy"] == (facts["confusion_matrix"][0][0] + facts["confusion_matrix"][1][1]) / 16
    engine = Path(facts["engine"]["file"])
    assert engine.stat().st_size == facts["engine"]["bytes"] > 1_000_000
    assert f"{engine}: an engine for GPUs of compute capability 8.0, 8.6, 8.9, 12.0" in finished.stderr
    for name in ("run/report.html", "confusion.png"):
        assert (out / name).stat().st_size > 0
        assert str(out / name) in finished.stderr


def test_images_are_classified_in_mixed_order_and_labelled_a_class_at_a_time() -> None:
    labels = {Path(f"{name}/{i}.jpg"): name for name in ("cats", "dogs") for i in range(100)}
    ((options, paths),) = calls(labels, recording=False)
    assert (options, sorted(paths)) == ((), sorted(labels))
    assert 30 < sum(labels[path] == "cats" for path in paths[:100]) < 70
    recorded = list(calls(labels, recording=True))
    assert [options for options, _ in recorded] == [("--label", "cats"), ("--label", "dogs")]
    assert {label: {labels[path] for path in paths} for (_, label), paths in recorded} == {
        "cats": {"cats"},
        "dogs": {"dogs"},
    }
    assert sorted(path for _, paths in recorded for path in paths) == sorted(labels)


def test_a_folder_that_no_demo_made_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    finished = run_cold("examples.demo", "--out", tmp_path)
    assert finished.returncode == 1
    assert "is not the folder of an earlier demo" in finished.stderr
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_server_keeps_running_until_ctrl_c(drawings: Path, tmp_path: Path) -> None:
    demo = WarmProcess(demo_main, "--out", tmp_path / "demo", "--data", drawings, "--keep")
    try:
        page = demo.printed(r'"page": "(http[^"]+)"')[1]
        assert ask(page, "/v2/health/ready").status == 200
        demo.send_signal(signal.SIGINT)
        assert demo.wait() == 0, demo.stderr
    finally:
        demo.close()
