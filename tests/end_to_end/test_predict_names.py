"""`predict` of files whose names are not plain text, and to outputs that cannot show them."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.commands import ROOT, run
from tests.support.images import encoded


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with one image."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "red-0.png").write_bytes(encoded(Image.new("RGB", (64, 64), "red"), "PNG"))
    return folder


def test_names_that_are_not_utf_8_are_written_and_resumed(address: str, images: Path, tmp_path: Path) -> None:
    name = os.fsencode(images) + b'/caf\xe9, "x".png'
    Path(os.fsdecode(name)).write_bytes((images / "red-0.png").read_bytes())
    for out in (tmp_path / "out.csv", tmp_path / "out.jsonl"):
        run("serving", "predict", images, "--out", out, "--server", address)
        finished = run("serving", "predict", images, "--out", out, "--resume", "--server", address)
        assert "0 of 0 files" in finished.stdout
        assert "2 classified before" in finished.stdout


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_names_of_several_lines_are_one_row_and_resumed(
    address: str, images: Path, tmp_path: Path, suffix: str
) -> None:
    names = ["line\nfeed.png", "carriage\rreturn.png", "next\x85line.png", "paragraph\u2029.png"]
    for name in names:
        (images / name).write_bytes((images / "red-0.png").read_bytes())
    out = tmp_path / f"out{suffix}"
    arguments = ["serving", "predict", *(images / name for name in names), "--out", out, "--server", address]
    assert run(*arguments).returncode == 0
    whole = out.read_bytes()
    finished = run(*arguments, "--resume")
    assert "0 of 0 files" in finished.stdout
    assert out.read_bytes() == whole
    # after a crash within the name of the last row, that file is classified again and none is lost
    out.write_bytes(whole[: whole.rfind(b"line", 0, whole.rfind(b"feed.png")) + 5])
    assert run(*arguments, "--resume").returncode == 0
    if suffix == ".csv":
        with out.open(newline="") as file:
            done = [row["file"] for row in csv.DictReader(file)]
    else:
        done = [json.loads(line)["file"] for line in out.read_bytes().split(b"\n") if line]
    assert sorted(done) == sorted(str(images / name) for name in names)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_standard_output_that_is_full_or_not_utf_8_ends_nothing_early(
    address: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """With results still to come: an exception must not leave the command waiting for its own streams."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(100):
        (images / f"赤{number}.png").write_bytes(encoded(Image.new("RGB", (64, 64), "red"), "PNG"))
    command = [sys.executable, "-m", "serving", "predict", str(images), "--server", address, *options]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\\u8d64") == (200 if options else 100)  # JSON has the reference too
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"pawserve: the output cannot be used: No space left on device\n")
