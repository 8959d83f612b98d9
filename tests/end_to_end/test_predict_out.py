"""`predict --out` with a real server: the file, also after a restart, Ctrl-C or a crash."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from PIL import Image

from serving.client import Client
from tests.support.bundles import write_bundle
from tests.support.commands import ROOT, run
from tests.support.images import encoded
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S, eventually

COLOURS = {"red": "red", "green": "#00ff00", "blue": "blue"}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """30 images named by their colours, a text file and a broken link."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in COLOURS.items():
        content = encoded(Image.new("RGB", (64, 64), colour), "PNG")
        for number in range(10):
            (folder / f"{name}-{number}.png").write_bytes(content)
    (folder / "text.jpg").write_text("not an image")
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    return folder


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@contextmanager
def predicting(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "serving", "predict", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_in(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_each_file_has_its_row_and_failures_are_counted(address: str, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    finished = run("serving", "predict", images, "--out", out, "--server", address)
    assert finished.returncode == 1
    assert "32 of 32 files" in finished.stdout
    assert "30 classified, 2 failed (1 NOT_AN_IMAGE, 1 UNREADABLE)" in finished.stdout
    table = {Path(row["file"]).name: row for row in rows(out)}
    assert len(table) == 32
    for name, row in table.items():
        if name.endswith(".png"):
            assert row["label"] == name.partition("-")[0]
            assert float(row["probability"]) > 0.9
            assert row["model"] == "models/colours/versions/1"
            assert row["token"]
    assert table["text.jpg"]["error"] == "NOT_AN_IMAGE"
    assert table["gone.jpg"]["error"] == "UNREADABLE"


def test_results_name_the_prediction_and_the_file_below_its_folder(address: str, tmp_path: Path) -> None:
    content = encoded(Image.new("RGB", (64, 64), "red"), "PNG")
    below = {"dogs/1.png", "=1+1.png", "long/" + "d" * 200 + "/" + "f" * 60 + ".png"}
    for name in below:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    single = tmp_path / "single.png"
    single.write_bytes(content)
    out = tmp_path / "out.csv"
    finished = run("serving", "predict", tmp_path / "photos", single, "--out", out, "--server", address)
    assert finished.returncode == 0, finished
    assert "1 files have no reference" in finished.stderr
    table = rows(out)
    assert {row["reference"] for row in table} == {"dogs/1.png", "'=1+1.png", "", str(single)}
    assert all(re.fullmatch("[0-9a-f]{32}", row["id"]) for row in table)
    assert len({row["id"] for row in table}) == 4
    document = run("serving", "predict", single, "--json", "--server", address)
    (result,) = json.loads(document.stdout)["results"]
    assert result["reference"] == str(single)
    assert re.fullmatch("[0-9a-f]{32}", result["id"])


def test_json_lines_have_all_classes(address: str, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert run("serving", "predict", images, "--out", out, "--views", 2, "--server", address).returncode == 1
    documents = [json.loads(line) for line in out.read_text().splitlines()]
    (red,) = (each for each in documents if each["file"].endswith("red-0.png"))
    assert {entry["label"] for entry in red["classes"]} == set(COLOURS)
    assert red["views"] == 2
    assert sum("error" in each for each in documents) == 2


def test_resume_classifies_the_rest_and_the_failures_and_nothing_twice(
    address: str, images: Path, tmp_path: Path
) -> None:
    for out in (tmp_path / "out.csv", tmp_path / "out.jsonl"):
        arguments = ["serving", "predict", images, "--out", out, "--server", address]
        assert run(*arguments).returncode == 1
        rejected = run(*arguments)
        assert rejected.returncode == 1
        assert "--resume" in rejected.stderr
        whole = out.read_bytes()
        out.write_bytes(whole[: len(whole) * 2 // 3])  # as after a crash, perhaps within a line
        (images / "text.jpg").write_bytes((images / "red-0.png").read_bytes())
        finished = run(*arguments, "--resume")
        assert "classified before" in finished.stdout
        content = out.read_text()
        for file in images.iterdir():
            assert content.count(f"/{file.name}") == 1
        assert content.count("UNREADABLE") == 1
        assert "NOT_AN_IMAGE" not in content
        (images / "text.jpg").write_text("not an image")


def test_a_restart_of_the_server_loses_no_result(images: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=1)
    out = tmp_path / "out.csv"
    good = [file for file in sorted(images.glob("*.png")) for _ in range(30)]
    with ExitStack() as first:
        address = first.enter_context(running_server(tmp_path / "models", tmp_path / "state"))
        with predicting(*good, "--out", out, "--server", address) as predict:
            assert eventually(lambda: lines_in(out) > 100)
            first.close()
            assert predict.poll() is None
            with running_server(tmp_path / "models", tmp_path / "state", "--listen", address):
                summary, errors = predict.communicate(timeout=LIMIT_S)
    assert predict.returncode == 0, errors
    assert "900 of 900 files" in summary
    assert "Traceback" not in errors
    assert "Task was destroyed" not in errors
    assert Counter(row["file"] for row in rows(out)) == Counter(map(str, good))
    assert all(Path(row["file"]).name.startswith(row["label"]) for row in rows(out))


def test_ctrl_c_keeps_the_results_and_prints_how_many(images: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=3)
    out = tmp_path / "out.csv"
    good = [file for file in sorted(images.glob("*.png")) for _ in range(60)]
    with running_server(tmp_path / "models", tmp_path / "state", "--instances", 1, "--grace", 0) as address:
        with predicting(*good, "--out", out, "--server", address) as predict:
            assert eventually(lambda: lines_in(out) > 20)
            predict.send_signal(signal.SIGINT)
            _, errors = predict.communicate(timeout=LIMIT_S)
        assert predict.returncode == 130
        assert "Traceback" not in errors
        done = len(rows(out))
        assert 20 <= done < 1800
        assert "interrupted; continue" in errors
        assert f"{done:,} of 1,800 files" in errors


def test_after_a_kill_resume_continues_the_file(images: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=3)
    out = tmp_path / "out.jsonl"
    with running_server(tmp_path / "models", tmp_path / "state", "--instances", 1, "--grace", 0) as address:
        good = sorted(images.glob("*.png"))
        many = [file for file in good for _ in range(60)]
        with predicting(*many, "--out", out, "--server", address) as predict:
            assert eventually(lambda: lines_in(out) > 20)
            predict.kill()
            predict.communicate(timeout=LIMIT_S)
        finished = run("serving", "predict", *good, "--out", out, "--resume", "--server", address)
    assert finished.returncode == 0, finished.stderr
    assert {json.loads(line)["file"] for line in out.read_text().splitlines()} == set(map(str, good))


def test_a_server_that_disappears_is_reported_with_the_number_of_results(images: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=3)
    out = tmp_path / "out.csv"
    many = [file for file in sorted(images.glob("*.png")) for _ in range(60)]
    with ExitStack() as server:
        address = server.enter_context(running_server(tmp_path / "models", tmp_path / "state", "--grace", 0))
        with predicting(*many, "--out", out, "--timeout", 10, "--server", address) as predict:
            assert eventually(lambda: lines_in(out) > 20)
            server.close()
            summary, errors = predict.communicate(timeout=LIMIT_S)
    assert predict.returncode == 1
    assert "stopped: no result arrived for 10 s" in errors
    assert f"{len(rows(out)):,} of 1,800 files" in summary


def test_the_label_is_recorded_once_for_each_image(images: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with running_server(tmp_path / "models", tmp_path / "state") as address:
        arguments = ["--out", tmp_path / "out.csv", "--label", "red", "--server", address]
        run("serving", "predict", images, *arguments)
        with Client(address, timeout_s=LIMIT_S) as client:
            (statistics,) = client.statistics()
        assert statistics.labels == 30
        unknown = run("serving", "predict", images / "red-0.png", "--label", "cat", "--server", address)
        assert "'cat' is not a class of models/colours/versions/1" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "out.txt"], 1, "use .csv or .jsonl"),
        (["--out", "nowhere/out.csv"], 1, "cannot be written"),
        (["--resume"], 2, "--out"),
    ],
)
def test_options_that_cannot_be_used_are_reported(
    address: str, images: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    given = [str(tmp_path / each) if each.startswith(("out", "nowhere")) else each for each in arguments]
    finished = run("serving", "predict", images, *given, "--server", address)
    assert finished.returncode == code
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_file_that_holds_something_else_is_not_changed(address: str, images: Path, tmp_path: Path) -> None:
    for name, content in (("a.csv", "x,y\n1,2\n"), ("a.jsonl", "[1, 2]\n"), ("b.jsonl", "not JSON\n")):
        (tmp_path / name).write_text(content)
        finished = run("serving", "predict", images, "--out", tmp_path / name, "--resume", "--server", address)
        assert finished.returncode == 1
        assert "something else" in finished.stderr
        assert (tmp_path / name).read_text() == content


def test_a_pipe_in_a_folder_is_skipped(address: str, images: Path, tmp_path: Path) -> None:
    os.mkfifo(images / "camera.jpg")
    finished = run("serving", "predict", images, "--out", tmp_path / "out.csv", "--server", address)
    assert "32 of 32 files" in finished.stdout


def test_a_full_disk_is_reported_and_the_results_are_kept(address: str, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    arguments = ["serving", "predict", *sorted(images.glob("*.png")), "--out", out, "--server", address]
    finished = run(*arguments, file_limit=2000)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert "cannot be written" in finished.stderr
    assert "of 30 files" in finished.stdout
    assert out.stat().st_size == 2000
    assert run(*arguments, "--resume").returncode == 0
    assert Counter(Path(row["file"]).name for row in rows(out)) == {file.name: 1 for file in images.glob("*.png")}
