"""`predict` without a server, and predictions against the names of the folders that hold the images."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.bundles import COLOURS, write_bundle
from tests.support.commands import run, run_here
from tests.support.images import encoded
from tests.support.servers import running_server


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Colours in folders of their names: two red images are among the blue ones, and one in no class's folder."""
    folder = tmp_path / "images"
    shades = {"red": "red", "green": "#00ff00", "blue": "blue"}
    for name, colours in {
        "red": ["red"] * 4,
        "green": ["green"] * 3,
        "blue": ["blue", "red", "red"],
        "x": ["red"],
    }.items():
        (folder / "valid" / name).mkdir(parents=True)
        for number, colour in enumerate(colours):
            content = encoded(Image.new("RGB", (64, 64), shades[colour]), "PNG")
            (folder / "valid" / name / f"{number}.png").write_bytes(content)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "models")


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_bundle_classifies_in_this_process_and_folders_are_compared(images: Path, bundle: Path) -> None:
    finished = run("serving", "predict", images, "--model", bundle, COLUMNS="100")
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert [line for line in lines if line.endswith("incorrect: it is in blue")] == [
        line for line in lines if "blue/1.png" in line or "blue/2.png" in line
    ]
    assert "accuracy 80.0% (95% interval 49.0% to 94.3%, n = 10)" in finished.stdout
    assert "no folder around them is named after a class: 1" in finished.stdout
    assert "TOKEN" not in finished.stdout
    assert "pawserve label" not in finished.stdout


def test_answers_are_those_of_a_server(images: Path, bundle: Path, tmp_path: Path) -> None:
    options = ("predict", images, "--json", "--views", 3)
    here = json.loads(run("serving", *options, "--model", bundle.parent).stdout)
    with running_server(bundle.parents[1], tmp_path / "state") as address:
        there = json.loads(run("serving", *options, "--server", address).stdout)
    assert here["model"] == there["model"] == "models/colours/versions/1"
    for ours, theirs in zip(here["results"], there["results"], strict=True):
        assert (ours["file"], ours["classes"], ours["views"]) == (theirs["file"], theirs["classes"], theirs["views"])
        assert (ours["token"] == "") != (theirs["token"] == "")
    assert here["comparison"] == there["comparison"]
    counts = {name: here["comparison"]["confusion_matrix"][index] for index, name in enumerate(COLOURS)}
    assert sum(counts["blue"]) == 3
    assert counts["blue"][COLOURS.index("red")] == 2


def test_a_resumed_file_is_compared_as_a_whole(images: Path, bundle: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "out.csv", tmp_path / "matrix.png"
    options = ("predict", images, "--model", bundle, "--out", out)
    assert run("serving", *options).returncode == 0
    rows = rows_of(out)
    out.write_text("\n".join(out.read_text().splitlines()[:6]) + "\n")
    finished = run("serving", *options, "--resume", "--plot", plot)
    assert "6 classified" in finished.stdout
    assert "n = 10" in finished.stdout
    assert sorted(row["file"] for row in rows_of(out)) == sorted(row["file"] for row in rows)
    with Image.open(plot) as drawn:
        assert drawn.width > 300


def test_errors_of_files_are_those_of_a_server(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    files = (tmp_path / "text.jpg", tmp_path / "gone.jpg")
    results = json.loads(run("serving", "predict", *files, "--json", "--model", bundle).stdout)["results"]
    assert [result["error"]["reason"] for result in results] == ["NOT_AN_IMAGE", "UNREADABLE"]


def test_a_run_classifies_as_its_bundle_does(fitted: Path, drawings: Path, tmp_path: Path) -> None:
    assert run_here("export", "bundle", "--run", fitted, "--models", tmp_path, "--name", "pets").returncode == 0
    assert (tmp_path / "pets/1/report.html").read_bytes() == (fitted / "report.html").read_bytes()
    options = ("predict", drawings / "valid", "--json", "--views", 3)
    ours, theirs = (
        json.loads(run("serving", *options, "--model", model).stdout) for model in (fitted, tmp_path / "pets/1")
    )
    for one, other in zip(ours["results"], theirs["results"], strict=True):
        probabilities = [{each["label"]: each["probability"] for each in result["classes"]} for result in (one, other)]
        assert one["views"] == 3
        np.testing.assert_allclose(
            [probabilities[0][name] for name in ("cats", "dogs")],
            [probabilities[1][name] for name in ("cats", "dogs")],
            atol=1e-4,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "runs/nope"), "or a folder with a bundle or a finished run"),
        (("--model", "BUNDLE", "--label", "red"), "--label records labels at a server"),
        (("--model", "BUNDLE", "--plot", "x.png"), "no image is in one"),
    ],
)
def test_wrong_use_is_explained(bundle: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.new("RGB", (64, 64)), "PNG"))
    words = [str(bundle) if word == "BUNDLE" else word for word in options]
    finished = run("serving", "predict", tmp_path / "a.png", *words)
    assert finished.returncode == 2
    assert message in " ".join(finished.stderr.split())
