"""`python -m training check`, and `fit` with an edited list of suspects."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.support.commands import run_here
from training.runs.run import open_run

LITE0 = ("--arch", "tf_efficientnet_lite0")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def flawed(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawings with a cat among the dogs, and a validation image that is a mirrored copy of a training image."""
    folder = tmp_path_factory.mktemp("flawed") / "drawings"
    shutil.copytree(drawings, folder)
    (folder / "train/cats/cat.0010.jpg").rename(folder / "train/dogs/cat.0010.jpg")
    with Image.open(folder / "train/dogs/dog.0012.jpg") as image:
        ImageOps.mirror(image).save(folder / "valid/dogs/mirrored.jpg", quality=60)
    (folder / "train/dogs/empty.jpg").touch()
    Image.new("RGB", (100, 100)).save(folder / "train/cats/black.png")
    return folder


@pytest.fixture(scope="module")
def checked(flawed: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checked") / "new" / "out"
    finished = run_here("training", "check", "--data", flawed, "--out", out, "--cache", shared_cache, *LITE0, "--json")
    assert finished.returncode == 0, finished.stderr
    facts = json.loads(finished.stdout)
    assert facts["leaks"] == facts["duplicates"] == 1
    assert facts["images"] == {"train": 33, "valid": 17, "left_out": 1}
    assert facts["oddities"]["blank"] == 1
    assert "1 validation image with a copy among the training images" in finished.stderr
    return out


def test_the_lists_name_the_flaws(checked: Path) -> None:
    suspects = rows(checked / "suspects.csv")
    assert "train/dogs/cat.0010.jpg" in [row["path"] for row in suspects[:3]]
    (suspect,) = (row for row in suspects if row["path"] == "train/dogs/cat.0010.jpg")
    assert (suspect["part"], suspect["label"], suspect["suggested"], suspect["corrected"]) == (
        "train",
        "dogs",
        "cats",
        "",
    )
    assert float(suspect["p_label"]) < float(suspect["p_suggested"])
    duplicates = rows(checked / "duplicates.csv")
    assert [row["path"] for row in duplicates] == ["train/dogs/dog.0012.jpg", "valid/dogs/mirrored.jpg"]
    assert [row["leak"] for row in duplicates] == ["no", "yes"]


def test_the_page_is_self_contained_and_names_the_flaws(checked: Path) -> None:
    page = (checked / "data.html").read_text(encoding="utf-8")
    for text in ("cat.0010.jpg", "mirrored.jpg", "empty.jpg", "1 validation image with a copy", "nearly one colour"):
        assert text in page
    assert "http" not in page
    assert "<script" not in page


def test_an_edited_list_is_kept_when_the_check_is_repeated(
    checked: Path, flawed: Path, shared_cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(checked, out)
    (out / "suspects.csv").write_text("path,corrected\n")
    finished = run_here("training", "check", "--data", flawed, "--out", out, "--cache", shared_cache, *LITE0)
    assert finished.returncode == 0, finished.stderr
    assert (out / "suspects.csv.previous").read_text() == "path,corrected\n"
    assert rows(out / "suspects.csv") == rows(checked / "suspects.csv")


def test_fit_checks_the_data_and_trains_without_what_a_list_excludes(
    checked: Path, flawed: Path, shared_cache: Path, tmp_path: Path
) -> None:
    arguments = ("training", "fit", "--data", flawed, "--cache", shared_cache, *LITE0)
    first = run_here(*arguments, "--run", tmp_path / "first")
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "first/suspects.csv").read_text() == (checked / "suspects.csv").read_text()
    facts = open_run(tmp_path / "first").facts["data"]
    assert facts["checks"]["leaks"] == 1
    assert facts["exclusions"] is None
    report = (tmp_path / "first/report.html").read_text(encoding="utf-8")
    assert "1 validation image with a copy" in report
    assert "cat.0010.jpg" in report

    (tmp_path / "edited.csv").write_text(
        "path,corrected\ntrain/dogs/cat.0010.jpg,cats\nvalid/dogs/mirrored.jpg,\ntrain/cats/black.png,\n"
    )
    before = sorted(path for path in flawed.rglob("*") if path.is_file())
    second = run_here(*arguments, "--run", tmp_path / "second", "--exclude", tmp_path / "edited.csv")
    assert second.returncode == 0, second.stderr
    assert "2 images left out, 1 relabelled" in second.stderr
    result = open_run(tmp_path / "second")
    assert result.facts["data"]["exclusions"]["excluded"] == 2
    assert result.facts["data"]["checks"]["leaks"] == 0
    labels = {image.path.name: image.label for image in result.training()}
    assert labels["cat.0010.jpg"] == 0
    assert "black.png" not in labels
    assert sorted(path for path in flawed.rglob("*") if path.is_file()) == before


def test_features_that_separate_nothing_give_no_suspects(drawings: Path, shared_cache: Path, tmp_path: Path) -> None:
    tiny = ("--arch", "test_resnet", "--weights", "none", "--cache", shared_cache)
    data = tmp_path / "noise"
    rng = np.random.default_rng(0)
    for part in ("train", "valid"):
        for name in ("a", "b"):
            (data / part / name).mkdir(parents=True)
            for at in range(12):
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(data / part / name / f"{at}.png")
    finished = run_here("training", "check", "--data", data, "--out", tmp_path / "out", *tiny)
    assert finished.returncode == 0, finished.stderr
    assert "labels cannot be checked" in finished.stderr
    assert rows(tmp_path / "out/suspects.csv") == []


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("--data", "nowhere", "--out", "OUT"), 1, "--data nowhere does not exist"),
        (("--data", "DATA", "--out", "FILE"), 2, "--out is "),
        (("--data", "DATA"), 2, "--out"),
    ],
)
def test_invalid_arguments_are_rejected_with_the_reason(
    drawings: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    (tmp_path / "file").touch()
    names = {"DATA": str(drawings), "OUT": str(tmp_path / "out"), "FILE": str(tmp_path / "file")}
    finished = run_here("training", "check", *(names.get(argument, argument) for argument in arguments), *LITE0)
    assert finished.returncode == code
    assert complaint in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "out").exists()
