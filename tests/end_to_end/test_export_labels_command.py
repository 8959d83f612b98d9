"""`export-labels` as a user runs it."""

import csv
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from serving.bundle.model_version import ModelVersion
from serving.client import Client
from serving.statistics.store import Label, StatisticsStore
from serving.tokens.tokens import PredictionRecord
from tests.support.commands import ROOT, run
from tests.support.postgresql import Postgresql
from tests.support.servers import running_server
from tests.support.statistics import tokens
from tests.support.waiting import LIMIT_S


@pytest.fixture
def labelled(models: Path, tmp_path: Path) -> Path:
    """The state folder of a server that got three labels."""
    with running_server(models, tmp_path / "state") as address, Client(address, timeout_s=LIMIT_S) as client:
        client.record_labels(list(zip(tokens(client, 3), ("red", "blue", "red"), strict=True)))
    return tmp_path / "state"


def test_each_label_is_one_row(labelled: Path, tmp_path: Path) -> None:
    began = datetime.now(UTC)
    for name in ("labels.csv", "labels.parquet"):
        finished = run("serving", "export-labels", tmp_path / name, "--state", labelled)
        assert finished.returncode == 0, finished.stderr
        assert "3 labels" in finished.stdout
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "labels.parquet").to_pylist()
    assert [row["label"] for row in rows].count("red") == 2
    assert {row["predicted"] for row in rows} == {"red"}
    assert len({row["id"] for row in rows}) == 3
    for row, typed in zip(rows, table, strict=True):
        assert (row["id"], row["model"], int(row["version"])) == (typed["id"], "colours", 1)
        assert float(row["probability"]) == typed["probability"]
        assert datetime.fromisoformat(row["predicted_at"]) == typed["predicted_at"] < typed["labelled_at"] < began
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_an_export_may_be_of_one_model_and_a_time_window(labelled: Path, tmp_path: Path) -> None:
    with StatisticsStore(labelled / "statistics.sqlite") as store:
        store.register_version(ModelVersion("birds", 1), ["owl"])
    for arguments, count in (
        (["--model", "colours"], 3),
        (["--model", "colours/1", "--since", "1h"], 3),
        (["--model", "birds"], 0),
        (["--until", "1h"], 0),
    ):
        finished = run("serving", "export-labels", tmp_path / "labels.csv", "--state", labelled, *arguments)
        assert finished.stdout.startswith(f"{count} labels"), finished.stderr


def test_an_export_that_fails_prints_why_and_writes_nothing(labelled: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with closing(sqlite3.connect(foreign / "statistics.sqlite")) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    (tmp_path / "folder.csv").mkdir()
    labels = tmp_path / "labels.csv"
    for out, arguments, message in (
        (tmp_path / "labels.xlsx", ["--state", labelled], "neither FILE.csv nor FILE.parquet"),
        (tmp_path / "nowhere" / "labels.csv", ["--state", labelled], "labels.csv cannot be written: No such file"),
        (tmp_path / "folder.csv", ["--state", labelled], "folder.csv cannot be written: Is a directory"),
        (labels, ["--state", tmp_path / "empty"], "statistics.sqlite does not exist"),
        (labels, ["--state", foreign], "statistics.sqlite holds no statistics of pawserve"),
        (labels, ["--state", labelled, "--model", f"colours/{'9' * 30}"], "is not a model name"),
    ):
        finished = run("serving", "export-labels", out, *arguments)
        assert finished.returncode in (1, 2)
        *usage, last = finished.stderr.splitlines()
        assert message in last
        assert not usage or finished.returncode == 2
    assert not (tmp_path / "empty").exists()
    assert not labels.exists()


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_an_export_to_a_full_disk_names_the_file_and_keeps_the_earlier_one(tmp_path: Path, name: str) -> None:
    with StatisticsStore(tmp_path / "statistics.sqlite") as store:
        store.register_version(ModelVersion("birds", 1), ["owl"])
        records = [PredictionRecord(os.urandom(16), "birds", 1, 0, 0.5, i) for i in range(5_000)]
        store.record([Label(record, 0) for record in records]).result(LIMIT_S)
    (tmp_path / name).write_text("earlier")
    # SQLite needs some for itself
    finished = run("serving", "export-labels", tmp_path / name, "--state", tmp_path, file_limit=60_000)
    assert finished.returncode == 1
    assert f"{name} cannot be written: File too large" in finished.stderr
    assert (tmp_path / name).read_text() == "earlier"
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")]


BLOCKS = """
import sys, time
from serving.__main__ import main
from serving.statistics import export
select = export.select_labels
def slowly(*arguments):
    for chunk in select(*arguments):
        yield chunk
        print("in the middle", flush=True)
        time.sleep(60)
export.select_labels = slowly
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_export_ended_by_a_signal_keeps_the_earlier_file(
    labelled: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "labels.csv"
    out.write_text("earlier")
    command = [sys.executable, "-c", BLOCKS, "export-labels", str(out), "--state", str(labelled)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".labels.csv")]
        process.send_signal(number)
        process.send_signal(number)  # a second one from an impatient user
        _, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, errors) == (128 + number, "")
    assert out.read_text() == "earlier"
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_exported_labels_name_the_files_that_predict_has_classified(models: Path, tmp_path: Path) -> None:
    names = {"a/red.png": "red", "=1+1.png": "red", "b/blue.png": "blue"}
    for name, colour in names.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), colour).save(tmp_path / "photos" / name)
    predictions, labels, mistakes = (tmp_path / f"{name}.csv" for name in ("predictions", "labels", "mistakes"))
    state = tmp_path / "state"
    with running_server(models, state) as address:
        asked = ("predict", tmp_path / "photos", "--label", "red", "--out", predictions, "--server", address)
        assert run("serving", *asked).returncode == 0
    assert run("serving", "export-labels", labels, "--state", state).stdout.startswith("3 labels")
    assert run("serving", "export-labels", mistakes, "--state", state, "--incorrect").stdout.startswith("1 labels")

    def rows(file: Path) -> list[dict[str, str]]:
        with file.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    predicted = {(row["id"], row["reference"], row["label"]) for row in rows(predictions)}
    assert {(row["id"], row["reference"], row["predicted"]) for row in rows(labels)} == predicted
    assert {row["reference"] for row in rows(labels)} == {"a/red.png", "'=1+1.png", "b/blue.png"}
    assert [(row["reference"], row["predicted"], row["label"]) for row in rows(mistakes)] == [
        ("b/blue.png", "blue", "red")
    ]
    out = tmp_path / "labels.parquet"
    assert run("serving", "export-labels", out, "--state", state, "--incorrect").returncode == 0
    assert pq.read_table(out)["reference"].to_pylist() == ["b/blue.png"]
    nothing = run("serving", "export-labels", out, "--state", state, "--incorrect", "--since", "2100-01-01")
    assert nothing.stdout.startswith("0 labels"), nothing.stderr


def test_class_names_are_exported_unchanged(tmp_path: Path) -> None:
    names = ["=1+1", "a,b", 'say "owl"', "two\nlines", "Käuzchen 🦉", "", " "]
    with StatisticsStore(tmp_path / "statistics.sqlite") as store:
        store.register_version(ModelVersion("birds", 1), names)
        records = [PredictionRecord(bytes((i,)) * 16, "birds", 1, i, 0.5, i) for i in range(len(names))]
        store.record([Label(record, record.predicted) for record in records]).result(LIMIT_S)
    for out in (tmp_path / "labels.csv", tmp_path / "labels.parquet"):
        assert run("serving", "export-labels", out, "--state", tmp_path).returncode == 0
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == names
    assert pq.read_table(tmp_path / "labels.parquet")["label"].to_pylist() == names


def test_labels_in_postgresql_are_exported_too(models: Path, tmp_path: Path, postgresql: Postgresql) -> None:
    url = postgresql.create()
    with (
        running_server(models, tmp_path / "state", "--statistics", url) as address,
        Client(address, timeout_s=LIMIT_S) as client,
    ):
        client.record_labels([(token, "red") for token in tokens(client, 3)])
        finished = run("serving", "export-labels", tmp_path / "labels.parquet", PAWSERVE_STATISTICS=url)
    assert finished.stdout.startswith("3 labels"), finished.stderr
    assert pq.read_table(tmp_path / "labels.parquet").num_rows == 3
