"""Data folders as they are found: what `fit` and `evaluate` make of them and say about them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import run_here
from tests.support.images import encoded
from training.runs.run import open_run

pytestmark = pytest.mark.slow

TINY = ("--arch", "test_resnet", "--weights", "none")
JPEG_XL = b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(16)


def write(path: Path, content: bytes = b"", side: int = 40) -> None:
    """An image of noise, unlike all others, or a file of the given content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(os.fsencode(path))).integers(0, 256, (side, side, 3), np.uint8)
    path.write_bytes(content or encoded(Image.fromarray(noise), "PNG"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of five images and a junk file each."""
    folder = tmp_path / "data"
    for name in ("cats", "dogs"):
        for number in range(5):
            write(folder / name / f"{number}.png")
        write(folder / name / "junk.jxl", JPEG_XL + name.encode())
    return folder


@pytest.mark.parametrize("stage", [(), ("--preset", "from-scratch")])
def test_every_held_out_image_can_be_decoded(data: Path, tmp_path: Path, stage: tuple[str, ...]) -> None:
    for seed in range(3):  # with one of them, a junk file would be drawn
        options = ("--seed", seed, "--cache", tmp_path / "cache", *TINY, *stage, "--sizes", 32)
        short = ("--cycles", 1, "--cycle-len", 1, "--stages.whole.freeze-to", 0) if stage else ()
        finished = run_here("training", "fit", "--data", data, "--run", tmp_path / "run", *options, *short)
        assert finished.returncode == 0, finished.stderr
        facts = open_run(tmp_path / "run").facts["data"]
        assert (facts["train"], facts["valid"]) == (8, 2)
        assert [Path(each["path"]).name for each in facts["skipped"]] == ["junk.jxl"] * 2


def test_a_data_folder_may_hold_runs_and_the_run_that_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    write(data / "dogs/copy.png", (data / "cats/0.png").read_bytes())
    for name, left_out in (("runs/first", "runs: the folder that"), ("second", "runs: holds a run that fit wrote")):
        finished = run_here("training", "fit", "--data", ".", "--run", name, "--cache", tmp_path / "cache", *TINY)
        assert finished.returncode == 0, finished.stderr
        assert left_out in finished.stderr
        assert open_run(data / name).classes == ("cats", "dogs")
        assert "so one of the labels is incorrect: 1\n" in finished.stderr
        assert open_run(data / name).facts["data"]["in_two_classes"] == 1
        assert "The same file in two classes" in (data / name / "report.html").read_text()


def test_the_reasons_are_shown_if_no_image_can_be_read(data: Path, fitted: Path, tmp_path: Path) -> None:
    for image in data.rglob("*.png"):
        image.write_bytes(JPEG_XL + image.name.encode())
    finished = run_here("training", "fit", "--data", data, "--run", tmp_path / "run", "--cache", tmp_path, *TINY)
    assert finished.returncode == 1
    assert "2 of 2 classes have too few readable images, not counting copies: cats (0), dogs (0)" in finished.stderr
    assert "left out: 12 files or folders\n" in finished.stderr
    assert finished.stderr.count("JPEG XL is not supported") == 10
    assert "  and 2 more\n" in finished.stderr
    evaluated = run_here("training", "evaluate", "--run", fitted, "--data", data)
    assert evaluated.returncode == 1
    assert "no image can be read\nleft out: 12 files or folders\n" in evaluated.stderr


def test_larger_images_than_a_server_accepts_are_trained_on(data: Path, tmp_path: Path) -> None:
    Image.new("L", (8000, 6500), 7).save(data / "cats/large.png")  # 52 million pixels
    limit = ("--max-pixels", 40_000_000)
    for options, count in ((), 11), (limit, 10):
        finished = run_here(
            *("training", "fit", "--data", data, "--run", tmp_path / "run", "--cache", tmp_path), *TINY, *options
        )
        assert finished.returncode == 0, finished.stderr
        facts = open_run(tmp_path / "run").facts["data"]
        assert facts["train"] + facts["valid"] == count
    assert "at most 40,000,000 are allowed (--max-image-mib, --max-pixels)" in finished.stderr
    assert open_run(tmp_path / "run").limits.max_pixels == 40_000_000
    packed = run_here("training", "shard", "--data", data, "--out", tmp_path / "shards")
    assert packed.returncode == 0, packed.stderr
    from_shards = run_here(
        *("training", "fit", "--data", tmp_path / "shards", "--run", tmp_path / "run", "--cache", tmp_path), *TINY
    )
    assert from_shards.returncode == 0, from_shards.stderr
    facts = open_run(tmp_path / "run").facts["data"]
    assert facts["train"] + facts["valid"] == 11


def test_a_run_is_evaluated_on_some_of_its_classes(fitted: Path, drawings: Path, tmp_path: Path) -> None:
    whole = run_here("training", "evaluate", "--run", fitted, "--data", drawings, "--json")
    shutil.copytree(drawings / "valid/dogs", tmp_path / "some/dogs")
    finished = run_here("training", "evaluate", "--run", fitted, "--data", tmp_path / "some", "--json")
    assert finished.returncode == 0, finished.stderr
    assert "images of 1 of the run's 2 classes" in finished.stderr
    of_whole, of_some = json.loads(whole.stdout), json.loads(finished.stdout)
    assert of_some["confusion_matrix"] == [[0, 0], of_whole["confusion_matrix"][1]]
    assert of_some["metrics"]["n"] == 8
    (tmp_path / "some/birds").mkdir()
    rejected = run_here("training", "evaluate", "--run", fitted, "--data", tmp_path / "some")
    assert rejected.returncode == 1
    assert "only in the data: birds" in rejected.stderr
