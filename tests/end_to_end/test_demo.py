"""`make demo` with a few drawings as data."""

import json
from pathlib import Path

import pytest

from tests.support.commands import run_cold


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_trains_exports_serves_labels_and_shows_statistics(drawings: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    finished = run_cold("examples.demo", "--out", out, "--data", drawings)
    assert finished.returncode == 0, finished.stderr
    facts = json.loads(finished.stdout.splitlines()[-1])
    assert facts["labelled"] == 16
    assert facts["served"] == 3 * 16 + 4
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


def test_a_folder_that_no_demo_made_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    finished = run_cold("examples.demo", "--out", tmp_path)
    assert finished.returncode == 1
    assert "is not the folder of an earlier demo" in finished.stderr
    assert (tmp_path / "precious.txt").read_text() == "mine"
