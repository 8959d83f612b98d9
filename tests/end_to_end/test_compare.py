"""`python -m training compare`: tables, JSON and a page of finished runs."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.commands import run_here

pytestmark = pytest.mark.slow


def test_runs_are_compared_on_their_validation_images(
    fitted: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    arguments = (
        "--run",
        other,
        "--cache",
        shared_cache,
        "--arch",
        "test_resnet",
        "--weights",
        "none",
        "--seed",
        1,
        "--epochs",
        2,
    )
    assert run_here("training", "fit", "--data", drawings, *arguments).returncode == 0
    page = tmp_path / "comparison.html"

    finished = run_here("training", "compare", fitted, other, "--out", page)

    assert finished.returncode == 0, finished.stderr
    assert max(map(len, finished.stdout.splitlines())) <= 80
    assert "other against pets: " in finished.stdout
    assert "seed" in finished.stdout
    text = page.read_text(encoding="utf-8")
    assert "http" not in text
    assert "stages.head.cycles" in text
    facts = json.loads(run_here("training", "compare", fitted, other, "--out", page, "--json").stdout)
    (pair,) = facts["pairs"]
    assert (pair["run"], pair["against"], pair["same_images"]) == ("other", "pets", True)
    assert pair["difference"]["value"] == pair["second"]["value"] - pair["first"]["value"]
    counts = pair["pairs"]
    assert sum(counts.values()) == pair["shared_images"] == 16
    for folder, only in ((fitted, "only_first_correct"), (other, "only_second_correct")):
        correct = json.loads((folder / "run.json").read_text())["metrics"]["correct"]
        assert counts["both_correct"] + counts[only] == correct


def test_what_cannot_be_compared_is_rejected_with_what_to_do(fitted: Path, tmp_path: Path) -> None:
    alone = run_here("training", "compare", fitted)
    assert (alone.returncode, "give two or more" in alone.stdout + alone.stderr) == (2, True)
    missing = run_here("training", "compare", fitted, tmp_path, "--out", tmp_path / "page.html")
    assert missing.returncode == 1
    assert "is no finished run" in missing.stderr
    copied = tmp_path / "copied"
    shutil.copytree(fitted, copied)
    (copied / "history.jsonl").write_text('{"epoch": 1}\n')
    damaged = run_here("training", "compare", fitted, copied, "--out", tmp_path / "page.html")
    assert damaged.returncode == 1
    assert "history.jsonl cannot be read" in damaged.stderr
    assert not (tmp_path / "page.html").exists()
