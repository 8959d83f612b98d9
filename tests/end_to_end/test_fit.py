"""`python -m training fit`: results, unreadable images, interrupts and second runs."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support.commands import WarmProcess, main_of, run, run_here
from training.runs.run import open_run

LITE0 = ("--arch", "tf_efficientnet_lite0")


@pytest.fixture(scope="module")
def fitted(drawings: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on drawings."""
    folder = tmp_path_factory.mktemp("runs") / "pets"
    finished = run("training", "fit", "--data", drawings, "--run", folder, "--cache", shared_cache, *LITE0, "--json")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == json.loads((folder / "run.json").read_text())
    return folder


def test_a_run_records_its_metrics_and_data(fitted: Path, drawings: Path) -> None:
    facts = json.loads((fitted / "run.json").read_text())
    assert facts["classes"] == ["cats", "dogs"]
    metrics = facts["metrics"]
    assert metrics["n"] == 16
    assert metrics["accuracy"]["value"] == metrics["correct"] / 16 >= 0.8
    assert metrics["accuracy"]["lower"] < metrics["accuracy"]["value"] <= metrics["accuracy"]["upper"]
    assert np.trace(facts["confusion_matrix"]) == metrics["correct"]
    assert np.sum(facts["confusion_matrix"], 1).tolist() == [8, 8]
    assert facts["data"]["path"] == str(drawings.resolve())
    assert {"activations", "train", "evaluate", "total"} <= set(facts["seconds"])
    assert {"torch", "timm", "onnxruntime", "python"} <= set(facts["versions"])
    assert {len(value) for value in facts["fingerprints"].values()} == {64}


def test_a_run_folder_has_the_files_of_the_report_the_recipe_and_the_export(fitted: Path) -> None:
    names = {path.name for path in fitted.iterdir()}
    assert {"run.json", "report.html", "recipe.yaml", "history.jsonl", "model.safetensors", "plots"} <= names
    report = (fitted / "report.html").read_text()
    for title in ("correct at random", "incorrect at random", "Most correct: cats", "Most incorrect: dogs"):
        assert title in report
    assert "Most uncertain: cats" in report
    assert "http" not in report.replace("http-equiv", "")
    epochs = [json.loads(line) for line in (fitted / "history.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, 8))
    assert list(fitted.parent.glob(".*")) == []


def test_the_recorded_probabilities_are_those_of_the_network(fitted: Path) -> None:
    import torch

    from export.graphs.onnx import DeployedModel

    result = open_run(fitted)
    images, recorded_NK = result.validation()
    views = np.concatenate([image.views(result.preprocess) for image in images])
    with torch.inference_mode():
        answers = DeployedModel(result.load_classifier(), result.temperature).eval()(torch.from_numpy(views)).numpy()
    np.testing.assert_allclose(answers, recorded_NK, atol=1e-5)


def test_the_saved_recipe_repeats_the_run_and_only_changed_images_are_computed_again(
    fitted: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "drawings"
    shutil.copytree(drawings, copied)
    (copied / "train/cats/cat.0009.jpg").touch()
    arguments = ("training", "fit", "--data", copied, "--run", tmp_path / "run", "--cache", shared_cache)
    again = run_here(*arguments, "--recipe", fitted / "recipe.yaml")
    assert again.returncode == 0, again.stderr
    facts = open_run(tmp_path / "run").facts
    assert facts["activations"] == {"computed": 0, "reused": 48}
    assert facts["metrics"] == open_run(fitted).facts["metrics"]
    first, second = (load_file(folder / "model.safetensors") for folder in (fitted, tmp_path / "run"))
    assert all(np.array_equal(first[name], second[name]) for name in first)

    changed = next((copied / "valid/dogs").iterdir())
    changed.write_bytes(next((copied / "valid/cats").iterdir()).read_bytes() + b"\0")
    changed_run = run_here(*arguments, *LITE0, "--seed", "1")
    assert changed_run.returncode == 0, changed_run.stderr
    assert open_run(tmp_path / "run").facts["activations"] == {"computed": 1, "reused": 47}
    assert open_run(tmp_path / "run.previous").facts["activations"]["computed"] == 0
    assert "run.previous" in changed_run.stderr


def test_files_that_are_no_images_are_left_out_and_listed(drawings: Path, shared_cache: Path, tmp_path: Path) -> None:
    copied = tmp_path / "drawings"
    shutil.copytree(drawings, copied)
    whole = next((copied / "train/cats").iterdir()).read_bytes()
    (copied / "train/cats/notes.txt").write_text("not an image")
    (copied / "train/dogs/half.jpg").write_bytes(whole[: len(whole) // 2])
    (copied / "valid/dogs/empty.png").touch()
    finished = run_here("training", "fit", "--data", copied, "--run", tmp_path / "run", "--cache", shared_cache, *LITE0)
    assert finished.returncode == 0, finished.stderr
    assert "left out: 3 files or folders\n" in finished.stderr
    data = open_run(tmp_path / "run").facts["data"]
    reasons = {Path(skipped["path"]).name: skipped["reason"].split(":")[0] for skipped in data["skipped"]}
    assert reasons == {"notes.txt": "NOT_AN_IMAGE", "half.jpg": "TRUNCATED", "empty.png": "NOT_AN_IMAGE"}
    assert (data["train"], data["valid"]) == (32, 16)
    assert "notes.txt" in (tmp_path / "run/report.html").read_text()


def test_a_class_without_a_readable_image_is_rejected(drawings: Path, shared_cache: Path, tmp_path: Path) -> None:
    for side in ("train", "valid"):
        shutil.copytree(drawings / side / "cats", tmp_path / "photos" / side / "cats")
        (tmp_path / "photos" / side / "dogs").mkdir()
        (tmp_path / "photos" / side / "dogs/1.jpg").write_bytes(b"not an image")
    finished = run_here(
        *("training", "fit", "--data", tmp_path / "photos", "--run", tmp_path / "run", "--cache", shared_cache), *LITE0
    )
    assert finished.returncode == 1
    assert "no readable image in the train part: dogs" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("--data", "nowhere", "--run", "RUN"), 1, "--data nowhere does not exist"),
        (("--data", "DATA", "--run", "RUN", "--lr", "-1"), 2, "lr is -1"),
        (("--data", "DATA", "--run", "RUN", "--epochs", "3", "--cycles", "2"), 2, "--epochs is one cycle"),
        (("--data", "DATA", "--run", "RUN", "--arch", "resent34"), 1, "no model 'resent34'; similar: resnet34,"),
        (("--data", "DATA", "--run", "RUN", "--weights", "missing.pth"), 1, "--weights missing.pth does not exist"),
        (("--data", "DATA", "--run", "DATA", *LITE0), 1, "holds other files than a run's"),
        (("--data", "DATA"), 2, "--run"),
    ],
)
def test_invalid_arguments_are_rejected_with_the_reason(
    drawings: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    names = {"DATA": str(drawings), "RUN": str(tmp_path / "run")}
    finished = run_here("training", "fit", *(names.get(argument, argument) for argument in arguments))
    assert finished.returncode == code
    assert complaint in finished.stderr
    assert "Traceback" not in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_no_run_and_keeps_computed_activations(drawings: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "pets"
    cache = tmp_path / "cache"

    def is_computing() -> bool:
        return any(cache.rglob("rows.f32"))

    fit = WarmProcess(main_of, "training", "fit", "--data", drawings, "--run", folder, "--cache", cache, *LITE0)
    fit.wait_until(is_computing)
    fit.send_signal(signal.SIGINT)
    finished = fit.finish()
    assert finished.returncode == 130, finished.stderr
    assert "Traceback" not in finished.stderr
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_pickle_given_as_weights_is_not_run(drawings: Path, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (__import__("os").system, (f"touch {tmp_path / 'ran'}",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    finished = run_here(
        *("training", "fit", "--data", drawings, "--run", tmp_path / "run"),
        *("--weights", tmp_path / "evil.pth", *LITE0),
    )
    assert finished.returncode == 1
    assert "no state dict that can be read safely" in finished.stderr
    assert not (tmp_path / "ran").exists()
