"""`predict --out` on a real server: what is in the file, and what a restart, Ctrl-C and a crash leave of it."""

import csv
import json
import os
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
from tests.support.waiting import eventually

COLOURS = {"red": "red", "green": "#00ff00", "blue": "blue"}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """30 pictures named by their colours, a text, and a link to nothing."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in COLOURS.items():
        content = encoded(Image.new("RGB", (64, 64), colour), "PNG")
        for number in range(10):
            (folder / f"{name}-{number}.png").write_bytes(content)
    (folder / "text.jpg").write_text("no picture")
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


def test_each_file_has_its_row_and_what_failed_is_counted(address: str, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    finished = run("serving", "predict", pictures, "--out", out, "--server", address)
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


def test_json_lines_have_all_classes(address: str, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert run("serving", "predict", pictures, "--out", out, "--views", 2, "--server", address).returncode == 1
    documents = [json.loads(line) for line in out.read_text().splitlines()]
    (red,) = (each for each in documents if each["file"].endswith("red-0.png"))
    assert {entry["label"] for entry in red["classes"]} == set(COLOURS)
    assert red["views"] == 2
    assert sum("error" in each for each in documents) == 2


def test_resume_does_the_rest_and_what_failed_and_nothing_twice(address: str, pictures: Path, tmp_path: Path) -> None:
    for out in (tmp_path / "out.csv", tmp_path / "out.jsonl"):
        arguments = ["serving", "predict", pictures, "--out", out, "--server", address]
        assert run(*arguments).returncode == 1
        refused = run(*arguments)
        assert refused.returncode == 1
        assert "--resume" in refused.stderr
        whole = out.read_bytes()
        out.write_bytes(whole[: len(whole) * 2 // 3])  # as a crash leaves it, perhaps within a line
        (pictures / "text.jpg").write_bytes((pictures / "red-0.png").read_bytes())
        finished = run(*arguments, "--resume")
        assert "were done before" in finished.stdout
        content = out.read_text()
        for file in pictures.iterdir():
            assert content.count(f"/{file.name}") == 1
        assert content.count("UNREADABLE") == 1
        assert "NOT_AN_IMAGE" not in content
        (pictures / "text.jpg").write_text("no picture")


def test_a_restart_of_the_server_loses_nothing(pictures: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=1)
    out = tmp_path / "out.csv"
    good = [file for file in sorted(pictures.glob("*.png")) for _ in range(30)]
    with ExitStack() as first:
        address = first.enter_context(running_server(tmp_path / "models", tmp_path / "state"))
        with predicting(*good, "--out", out, "--server", address) as predict:
            assert eventually(lambda: lines_in(out) > 100)
            first.close()
            assert predict.poll() is None
            with running_server(tmp_path / "models", tmp_path / "state", "--listen", address):
                summary, errors = predict.communicate(timeout=120)
    assert predict.returncode == 0, errors
    assert "900 of 900 files" in summary
    assert "Traceback" not in errors
    assert "Task was destroyed" not in errors
    assert Counter(row["file"] for row in rows(out)) == Counter(map(str, good))
    assert all(Path(row["file"]).name.startswith(row["label"]) for row in rows(out))


def test_ctrl_c_keeps_what_is_done_and_says_how_much(pictures: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=3)
    out = tmp_path / "out.csv"
    good = [file for file in sorted(pictures.glob("*.png")) for _ in range(60)]
    with running_server(tmp_path / "models", tmp_path / "state", "--instances", 1, "--grace", 0) as address:
        with predicting(*good, "--out", out, "--server", address) as predict:
            assert eventually(lambda: lines_in(out) > 20)
            predict.send_signal(signal.SIGINT)
            _, errors = predict.communicate(timeout=60)
        assert predict.returncode == 130
        assert "Traceback" not in errors
        done = len(rows(out))
        assert 20 <= done < 1800
        assert "interrupted; --resume goes on" in errors
        assert f"{done:,} of 1,800 files" in errors


def test_a_kill_leaves_whole_lines_that_a_resume_goes_on_from(pictures: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=3)
    out = tmp_path / "out.jsonl"
    with running_server(tmp_path / "models", tmp_path / "state", "--instances", 1, "--grace", 0) as address:
        good = sorted(pictures.glob("*.png"))
        many = [file for file in good for _ in range(60)]
        with predicting(*many, "--out", out, "--server", address) as predict:
            assert eventually(lambda: lines_in(out) > 20)
            predict.kill()
            predict.communicate(timeout=60)
        finished = run("serving", "predict", *good, "--out", out, "--resume", "--server", address)
    assert finished.returncode == 0, finished.stderr
    assert {json.loads(line)["file"] for line in out.read_text().splitlines()} == set(map(str, good))


def test_a_server_that_goes_for_good_is_said_with_what_is_done(pictures: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=3)
    out = tmp_path / "out.csv"
    many = [file for file in sorted(pictures.glob("*.png")) for _ in range(60)]
    with ExitStack() as server:
        address = server.enter_context(running_server(tmp_path / "models", tmp_path / "state", "--grace", 0))
        with predicting(*many, "--out", out, "--timeout", 3, "--server", address) as predict:
            assert eventually(lambda: lines_in(out) > 20)
            server.close()
            summary, errors = predict.communicate(timeout=60)
    assert predict.returncode == 1
    assert "stopped: no answer came for 3 s" in errors
    assert f"{len(rows(out)):,} of 1,800 files" in summary


def test_the_truth_is_recorded_once_for_each_picture(pictures: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with running_server(tmp_path / "models", tmp_path / "state") as address:
        arguments = ["--out", tmp_path / "out.csv", "--label", "red", "--server", address]
        run("serving", "predict", pictures, *arguments)
        with Client(address) as client:
            (statistics,) = client.statistics()
        assert statistics.labels == 30
        unknown = run("serving", "predict", pictures / "red-0.png", "--label", "cat", "--server", address)
        assert "'cat' is no class of models/colours/versions/1" in unknown.stdout


def test_names_that_are_no_utf_8_are_written_and_found_again(address: str, pictures: Path, tmp_path: Path) -> None:
    name = os.fsencode(pictures) + b'/caf\xe9, "x".png'
    Path(os.fsdecode(name)).write_bytes((pictures / "red-0.png").read_bytes())
    for out in (tmp_path / "out.csv", tmp_path / "out.jsonl"):
        run("serving", "predict", pictures, "--out", out, "--server", address)
        finished = run("serving", "predict", pictures, "--out", out, "--resume", "--server", address)
        assert "2 of 2 files" in finished.stdout
        assert "31 were done before" in finished.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "out.txt"], 1, ".csv and .jsonl are written"),
        (["--out", "nowhere/out.csv"], 1, "cannot be written"),
        (["--resume"], 2, "--out"),
    ],
)
def test_wrong_options_are_said(
    address: str, pictures: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    given = [str(tmp_path / each) if each.startswith(("out", "nowhere")) else each for each in arguments]
    finished = run("serving", "predict", pictures, *given, "--server", address)
    assert finished.returncode == code
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_file_that_holds_something_else_is_not_touched(address: str, pictures: Path, tmp_path: Path) -> None:
    for name, content in (("a.csv", "x,y\n1,2\n"), ("a.jsonl", "[1, 2]\n"), ("b.jsonl", "not JSON\n")):
        (tmp_path / name).write_text(content)
        finished = run("serving", "predict", pictures, "--out", tmp_path / name, "--resume", "--server", address)
        assert finished.returncode == 1
        assert "something else" in finished.stderr
        assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_names_of_several_lines_are_one_row_that_a_resume_finds_again(
    address: str, pictures: Path, tmp_path: Path, suffix: str
) -> None:
    names = ["line\nfeed.png", "carriage\rreturn.png", "next\x85line.png", "paragraph\u2029.png"]
    for name in names:
        (pictures / name).write_bytes((pictures / "red-0.png").read_bytes())
    out = tmp_path / f"out{suffix}"
    arguments = ["serving", "predict", *(pictures / name for name in names), "--out", out, "--server", address]
    assert run(*arguments).returncode == 0
    whole = out.read_bytes()
    finished = run(*arguments, "--resume")
    assert "0 of 0 files" in finished.stdout
    assert out.read_bytes() == whole
    # a crash within the name of the last row: that file is done again, and none is lost
    out.write_bytes(whole[: whole.rfind(b"line", 0, whole.rfind(b"feed.png")) + 5])
    assert run(*arguments, "--resume").returncode == 0
    if suffix == ".csv":
        done = [row["file"] for row in rows(out)]
    else:
        done = [json.loads(line)["file"] for line in out.read_bytes().split(b"\n") if line]
    assert sorted(done) == sorted(str(pictures / name) for name in names)


def test_a_pipe_in_a_folder_is_left_out_instead_of_waited_for(address: str, pictures: Path, tmp_path: Path) -> None:
    os.mkfifo(pictures / "camera.jpg")
    finished = run("serving", "predict", pictures, "--out", tmp_path / "out.csv", "--server", address)
    assert "32 of 32 files" in finished.stdout


def test_a_full_disk_is_said_and_what_is_written_stays(address: str, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    arguments = ["serving", "predict", *sorted(pictures.glob("*.png")), "--out", out, "--server", address]
    finished = run(*arguments, file_limit=2000)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert "cannot be written" in finished.stderr
    assert "of 30 files" in finished.stdout
    assert out.stat().st_size == 2000
    assert run(*arguments, "--resume").returncode == 0
    assert Counter(Path(row["file"]).name for row in rows(out)) == {file.name: 1 for file in pictures.glob("*.png")}
