"""`fit --labels`: images that were labelled while they were served are trained on."""

import csv
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.commands import WarmProcess, main_of, run_here
from tests.support.recipes import write_long_recipe
from training.runs.folder import can_resume
from training.runs.run import open_run

SMALL = ("--arch", "test_resnet", "--weights", "none", "--sizes", 32, "--cycle-len", 1)


@pytest.fixture
def data(drawings: Path, tmp_path: Path) -> Path:
    """The drawings without half of their training images, which are in camera/ beside it, in one folder."""
    folder, camera = tmp_path / "data", tmp_path / "camera"
    shutil.copytree(drawings, folder)
    camera.mkdir()
    for path in sorted(folder.glob("train/*/*"))[::2]:
        path.rename(camera / f"{path.parent.name}-{path.name}")
    return folder


def labels_file(path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "reference", "label"])
        writer.writerows(("00", reference, label) for reference, label in rows)
    return path


def served(data: Path) -> list[tuple[str, str]]:
    """Each image of camera/ with its class."""
    return [(path.name, path.name.partition("-")[0]) for path in sorted((data.parent / "camera").iterdir())]


def test_labelled_images_are_trained_on_and_recorded(data: Path, shared_cache: Path, tmp_path: Path) -> None:
    camera = tmp_path / "camera"
    labelled = served(data)
    shutil.copy(next(data.glob("valid/cats/*")), camera / "leak.jpg")
    shutil.copy(next(data.glob("train/cats/*")), camera / "conflict.jpg")
    rows = [*labelled, ("leak.jpg", "cats"), ("conflict.jpg", "dogs"), ("gone.jpg", "cats")]
    labels = labels_file(tmp_path / "labels.csv", rows)
    arguments = ("training", "fit", "--data", data, "--cache", shared_cache, *SMALL, "--labels", labels)
    finished = run_here(*arguments, "--images", camera, "--run", tmp_path / "run")
    assert finished.returncode == 0, finished.stderr
    assert "16 added to the training images" in finished.stderr
    assert "1 among the validation images: not trained on: leak.jpg (cats)" in finished.stderr
    assert "1 in the data folder as another class, which is kept" in finished.stderr
    assert "1 not there: left out: gone.jpg" in finished.stderr

    run = open_run(tmp_path / "run")
    assert run.facts["data"]["train"] == 32
    assert run.facts["data"]["valid"] == 16
    assert run.facts["data"]["in_train_and_valid"] == run.facts["data"]["in_two_classes"] == 0
    assert run.facts["data"]["labels"]["added"] == 16
    from_camera = {image.path: run.classes[image.label] for image in run.training() if image.path.parent == camera}
    assert from_camera == {camera / name: label for name, label in labelled}
    assert all(image.read() for image in run.training())
    assert "16 added to the training images" in (tmp_path / "run/report.html").read_text(encoding="utf-8")

    without = run_here(*arguments[:-2], "--run", tmp_path / "without")
    assert without.returncode == 0, without.stderr
    assert open_run(tmp_path / "without").facts["data"]["labels"] is None
    assert open_run(tmp_path / "without").facts["data"]["train"] == 16


def test_labelled_images_may_be_excluded(data: Path, shared_cache: Path, tmp_path: Path) -> None:
    rows = served(data)
    conflict = next(data.glob("train/cats/*"))
    shutil.copy(conflict, tmp_path / "camera" / "conflict.jpg")
    labels = labels_file(tmp_path / "labels.csv", [*rows, ("conflict.jpg", "dogs")])
    excluded = tmp_path / "excluded.csv"
    excluded.write_text(f"path\n{tmp_path / 'camera' / rows[0][0]}\n{conflict.relative_to(data)}\n")
    finished = run_here(
        *("training", "fit", "--data", data, "--cache", shared_cache, *SMALL, "--run", tmp_path / "run"),
        *("--labels", labels, "--images", tmp_path / "camera", "--exclude", excluded),
    )
    assert finished.returncode == 0, finished.stderr
    run = open_run(tmp_path / "run")
    assert run.facts["data"]["train"] == 31
    assert run.facts["data"]["exclusions"]["excluded"] == 2
    (image,) = (image for image in run.training() if image.path.name == "conflict.jpg")
    assert run.classes[image.label] == "dogs"  # the other label, of the file in the data folder, is excluded


def test_a_run_continues_with_the_same_labels_only(data: Path, tmp_path: Path) -> None:
    write_long_recipe(tmp_path / "recipe.yaml")
    rows = served(data)
    labels = labels_file(tmp_path / "labels.csv", rows)
    arguments = ("fit", "--data", data, "--recipe", tmp_path / "recipe.yaml", "--cache", tmp_path / "cache")
    arguments += ("--run", tmp_path / "run", "--labels", labels, "--images", tmp_path / "camera")
    fit = WarmProcess(main_of, "training", *arguments, "--checkpoint-every", 0)
    fit.wait_until(lambda: can_resume(tmp_path / "run"))
    fit.send_signal(signal.SIGINT)
    assert fit.finish().returncode == 130

    labels_file(labels, [*rows[1:], (rows[0][0], "dogs")])
    changed = run_here("training", *arguments, "--resume")
    assert changed.returncode == 1, changed.stderr
    assert "was started with other settings, so resuming would mix two runs:\n  images: " in changed.stderr

    labels_file(labels, rows)
    again = WarmProcess(main_of, "training", *arguments, "--resume", "--checkpoint-every", 0)
    again.wait_until(lambda: "resuming after" in again.stderr)
    again.send_signal(signal.SIGINT)
    assert again.finish().returncode == 130


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--labels", "labels.csv"), 2, "--labels is given without --images"),
        (("--images", "."), 2, "--images is given without --labels"),
        (("--labels", "nowhere.csv", "--images", "."), 1, "nowhere.csv does not exist"),
        (("--labels", "labels.csv", "--images", "nowhere"), 1, "nowhere does not exist"),
        (("--labels", "outside.csv", "--images", "."), 1, "outside.csv, row 2: the reference '../a.jpg' has a .. in"),
    ],
)
def test_what_cannot_be_used_is_rejected(
    drawings: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    labels_file(tmp_path / "labels.csv", [("a.jpg", "cats")])
    labels_file(tmp_path / "outside.csv", [("../a.jpg", "cats")])
    given = [each if each.startswith("--") else tmp_path / each for each in arguments]
    finished = run_here("training", "fit", "--data", drawings, "--run", tmp_path / "run", *SMALL, *given)
    assert finished.returncode == code
    assert message in finished.stderr
    assert not (tmp_path / "run").exists()


def test_shards_take_no_labels(data: Path, tmp_path: Path) -> None:
    assert run_here("training", "shard", "--data", data, "--out", tmp_path / "shards").returncode == 0
    labels = labels_file(tmp_path / "labels.csv", served(data))
    arguments = ("--labels", labels, "--images", tmp_path / "camera", "--run", tmp_path / "run")
    finished = run_here("training", "fit", "--data", tmp_path / "shards", *SMALL, *arguments)
    assert finished.returncode == 1
    assert "holds shards, to which --labels cannot add images" in finished.stderr
