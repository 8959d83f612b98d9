"""`python -m export bundle` as a user runs it: a bundle is written only if its files passed all checks."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy

from export.bundle import present_rows
from export.checks.checks import CheckError, Tolerances
from export.checks.verify import ParityReference, check_graph, verify
from export.graphs.onnx import DeployedModel
from export.inference import load_views
from serving.bundle.manifest import open_bundle
from tests.support.commands import ROOT, Finished, WarmProcess, main_of, run_here
from training.data.layout import DataError
from training.runs.run import open_run


@pytest.fixture(scope="module")
def models(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with pets/1."""
    folder = tmp_path_factory.mktemp("models")
    finished = export_of(fitted, folder)
    assert finished.returncode == 0, finished.stderr
    return folder


def test_a_bundle_has_a_checked_graph_and_states_its_origin(models: Path, fitted: Path) -> None:
    bundle = open_bundle(models / "pets" / "1")
    facts = open_run(fitted).facts
    assert bundle.manifest.classes == ("cats", "dogs")
    counted = bundle.manifest.validation
    assert counted is not None
    assert bundle.manifest.metrics == facts["metrics"] | {"predictions": counted.to_fields()}
    assert counted.images == 16
    _, trained_NK = open_run(fitted).validation()
    assert list(counted.class_counts) == np.bincount(trained_NK.argmax(1), minlength=2).tolist()
    assert bundle.manifest.fingerprints == facts["fingerprints"]
    artifact = bundle.artifact("fp32")
    graph = bundle.read(artifact)
    check_graph(graph, crop=160, classes=2)
    assert artifact.parity["photos"] == 16
    assert artifact.parity["correct"] == facts["metrics"]["correct"]
    assert set(artifact.parity["max_abs_diff_by_batch"]) == {"1", "3", "32"}
    assert 0 <= artifact.parity["max_abs_diff"] <= 1e-4


def test_a_bundle_has_a_model_card_whose_license_inspect_shows(models: Path, fitted: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface-hub is not installed")
    finished = export_of(fitted, tmp_path, "--license", "cc-by-4.0", "--intended-use", "Counting pets.")
    assert finished.returncode == 0, finished.stderr
    card = hub.ModelCard.load(tmp_path / "pets/1/README.md")
    assert card.data.license == "cc-by-4.0"
    assert "Counting pets." in card.text
    for folder, shown in ((tmp_path, "license cc-by-4.0"), (models, "license unknown")):
        assert shown in " ".join(run_here("export", "inspect", folder / "pets").stdout.split())
    (tmp_path / "pets/1/README.md").unlink()  # it is for people
    assert run_here("export", "inspect", tmp_path / "pets").returncode == 0


def test_the_graph_contains_no_paths_of_the_machine_that_exported_it(models: Path) -> None:
    written = b"".join(path.read_bytes() for path in (models / "pets" / "1").glob("*.onnx"))
    assert written
    assert str(ROOT).encode() not in written
    assert b"site-packages" not in written


def test_the_graph_takes_any_batch_and_gives_probabilities(models: Path) -> None:
    bundle = open_bundle(models / "pets" / "1")
    session = onnxruntime.InferenceSession(bundle.read(bundle.artifact("fp32")), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (5, 160, 160, 3), np.uint8)
    together = session.run(None, {"images": images})[0]
    one_by_one = np.concatenate([session.run(None, {"images": images[row : row + 1]})[0] for row in range(5)])
    assert together.shape == (5, 2)
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(together, one_by_one, atol=1e-6)


def test_each_export_gets_the_next_version(models: Path, fitted: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "pets" / "1", tmp_path / "pets" / "7")
    finished = export_of(fitted, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert sorted(path.name for path in (tmp_path / "pets").iterdir()) == ["7", "8"]
    assert open_bundle(tmp_path / "pets" / "8").manifest.resource == "models/pets/versions/8"
    first, again = ((tmp_path / "pets" / version / "model.fp32.onnx").read_bytes() for version in ("7", "8"))
    assert first == again


def test_inspect_shows_a_bundle_and_notices_a_changed_file(models: Path, tmp_path: Path) -> None:
    shown = run_here("export", "inspect", models / "pets" / "1")
    assert shown.returncode == 0
    assert "models/pets/versions/1" in shown.stdout
    assert "cats, dogs" in shown.stdout
    assert json.loads(run_here("export", "inspect", models / "pets" / "1", "--json").stdout)["classes"] == [
        "cats",
        "dogs",
    ]
    shutil.copytree(models / "pets" / "1", tmp_path / "1")
    graph = tmp_path / "1" / "model.fp32.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    failed = run_here("export", "inspect", tmp_path / "1")
    assert failed.returncode == 1
    assert "it was changed after the export" in failed.stderr


@pytest.fixture(scope="module")
def reference(fitted: Path) -> ParityReference:
    """What graphs of the run are compared with."""
    result = open_run(fitted)
    images, trained_NK = result.validation()
    return ParityReference(
        model=DeployedModel(result.load_classifier(), result.temperature).eval(),
        images=images,
        views_NHWC=load_views(images, result.preprocess),
        trained_NK=trained_NK,
        tolerances=Tolerances(),
    )


def test_one_of_many_validation_images_may_have_been_deleted(
    reference: ParityReference, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    present = list(reference.images) * 7
    gone = replace(present[0], path=tmp_path / "gone.jpg")
    assert present_rows([*present[:99], gone], tmp_path) == list(range(99))
    printed = capsys.readouterr().err
    assert f"1 of 100 validation images are missing in {tmp_path}, such as {gone.path}; they are left out" in printed
    with pytest.raises(DataError, match="2 of 100 validation images are missing.* give their folder as --data"):
        present_rows([*present[:98], gone, gone], tmp_path)


def test_a_graph_that_differs_fails_and_the_image_that_differs_most_is_named(
    models: Path, reference: ParityReference
) -> None:
    bundle = open_bundle(models / "pets" / "1")
    model = onnx.load_from_string(bundle.read(bundle.artifact("fp32")))
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("head.6.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32([0, 5]), bias.name))
    with pytest.raises(CheckError, match=r"differ by .* in a batch of 1 .*most on .*\.jpg"):
        verify(model.SerializeToString(), "fp32", "onnxruntime", reference)


def test_a_graph_with_a_fixed_batch_fails(models: Path) -> None:
    bundle = open_bundle(models / "pets" / "1")
    model = onnx.load_from_string(bundle.read(bundle.artifact("fp32")))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(CheckError, match="fixed batch of 2|checker rejects"):
        check_graph(model.SerializeToString(), crop=160, classes=2)


def copy_run(fitted: Path, folder: Path) -> Path:
    shutil.copytree(fitted, folder)
    return folder


def export_of(run_folder: Path, models: Path, *arguments: object) -> Finished:
    precisions = () if "--precisions" in arguments else ("--precisions", "fp32")
    return run_here(
        *("export", "bundle", "--run", run_folder, "--models", models, "--name", "pets"), *precisions, *arguments
    )


def assert_nothing_under(models: Path) -> None:
    assert not models.exists() or [path for path in models.rglob("*") if path.is_file()] == []


def test_incomplete_runs_are_an_error(fitted: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    unfinished = copy_run(fitted, tmp_path / "unfinished")
    (unfinished / "run.json").unlink()
    headless = copy_run(fitted, tmp_path / "headless")
    (headless / "model.safetensors").unlink()
    renamed = copy_run(fitted, tmp_path / "other classes")
    facts = json.loads((renamed / "run.json").read_text())
    (renamed / "run.json").write_text(json.dumps({**facts, "classes": ["birds", "cats", "dogs"]}))
    for folder, complaint in (
        (tmp_path / "empty", "no finished run"),
        (unfinished, "no finished run"),
        (headless, "model.safetensors cannot be read"),
        (renamed, "has 2 classes and"),
    ):
        finished = export_of(folder, tmp_path / "models")
        assert finished.returncode == 1, folder
        assert complaint in finished.stderr
        assert "Traceback" not in finished.stderr
    assert_nothing_under(tmp_path / "models")


def test_a_folder_of_models_that_cannot_be_written_is_reported_before_the_work(fitted: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finished = export_of(fitted, tmp_path / "file" / "models")
    assert finished.returncode == 1
    assert f"--models {tmp_path}/file/models cannot be written: File exists; give another" in finished.stderr
    assert "validation images" not in finished.stderr


def test_weights_other_than_those_that_were_evaluated_fail_the_parity_check(fitted: Path, tmp_path: Path) -> None:
    tampered = copy_run(fitted, tmp_path / "tampered")
    state = safetensors.numpy.load_file(tampered / "model.safetensors")
    state["head.6.bias"] = state["head.6.bias"] + np.float32([0.5, 0])
    safetensors.numpy.save_file(state, tampered / "model.safetensors")
    finished = export_of(tampered, tmp_path / "models")
    assert finished.returncode == 1
    assert "differs from the trained network by" in finished.stderr
    assert ".jpg" in finished.stderr
    assert_nothing_under(tmp_path / "models")


def test_images_that_moved_are_found_and_images_that_changed_are_an_error(
    fitted: Path, drawings: Path, tmp_path: Path
) -> None:
    moved = copy_run(fitted, tmp_path / "run")
    facts = json.loads((moved / "run.json").read_text())
    facts["data"]["path"] = str(tmp_path / "gone")
    (moved / "run.json").write_text(json.dumps(facts))
    gone = export_of(moved, tmp_path / "models")
    assert gone.returncode == 1
    assert f"16 of 16 validation images are missing in {tmp_path / 'gone'}" in gone.stderr
    assert "if they have moved, give their folder as --data" in gone.stderr
    found = export_of(moved, tmp_path / "models", "--data", drawings)
    assert found.returncode == 0, found.stderr
    shutil.copytree(drawings, tmp_path / "changed")
    next((tmp_path / "changed/valid/cats").iterdir()).write_bytes(b"changed")
    changed = export_of(moved, tmp_path / "models", "--data", tmp_path / "changed")
    assert changed.returncode == 1
    assert "has changed" in changed.stderr


@pytest.mark.parametrize("name", ["../pets", "Pets", "", "a" * 80, "pets/1"])
def test_an_invalid_name_is_an_error_before_any_work(fitted: Path, tmp_path: Path, name: str) -> None:
    finished = run_here("export", "bundle", "--run", fitted, "--models", tmp_path / "models", f"--name={name}")
    assert finished.returncode == 1
    assert "a-z" in finished.stderr
    assert list(tmp_path.rglob("*")) == []


def on_a_full_disk(*arguments: str) -> int:
    """`python -m export bundle arguments…`, where a write beyond the limit fails as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    return main_of("export", "bundle", *arguments)


def test_a_full_disk_leaves_nothing_under_the_bundle_s_name(fitted: Path, tmp_path: Path) -> None:
    arguments = ("--run", fitted, "--models", tmp_path / "models", "--name", "pets", "--precisions", "fp32")
    finished = WarmProcess(on_a_full_disk, *map(str, arguments), file_limit=2**18).finish()
    assert finished.returncode == 1, finished.stderr
    assert "File too large" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert_nothing_under(tmp_path / "models")
