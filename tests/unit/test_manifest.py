"""Manifests and files of bundles are checked before they are used."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from serving.bundle.manifest import Artifact, BundleError, Manifest, open_bundle
from serving.image.preprocess import PIXELS_VERSION, Preprocess

GRAPH = b"not really a graph"


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "name": "pets",
        "version": 1,
        "created": "2026-01-01T00:00:00+00:00",
        "arch": "resnet34",
        "classes": ("cats", "dogs"),
        "preprocess": Preprocess(),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "temperature": 1.0,
        "artifacts": (
            Artifact(file="model.onnx", precision="fp32", sha256=sha256(GRAPH).hexdigest(), bytes=len(GRAPH)),
        ),
        "metrics": {},
        "fingerprints": {},
        "versions": {},
    }
    return Manifest(**{**fields, **changes})


def write(folder: Path, content: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(content or manifest().to_json(), encoding="utf-8")
    (folder / "model.onnx").write_bytes(GRAPH)
    return folder


def test_a_written_bundle_is_read_again(tmp_path: Path) -> None:
    original = manifest(classes=("Hündin", "猫"), temperatures={1: 1.0, 3: 0.9}, recommended_views=3)
    bundle = open_bundle(write(tmp_path, original.to_json()))
    assert bundle.manifest == original
    assert bundle.manifest.resource == "models/pets/versions/1"
    assert bundle.read(bundle.artifact("fp32")) == GRAPH


def test_a_file_that_differs_from_the_manifest_is_rejected(tmp_path: Path) -> None:
    bundle = open_bundle(write(tmp_path))
    artifact = bundle.artifact("fp32")
    (tmp_path / "model.onnx").write_bytes(GRAPH[::-1])
    with pytest.raises(BundleError, match="it was changed after the export"):
        bundle.read(artifact)
    (tmp_path / "model.onnx").write_bytes(GRAPH + b"!")
    with pytest.raises(BundleError, match="has 19 bytes, and model.json says 18"):
        bundle.read(artifact)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.read(artifact)


def test_the_error_of_a_missing_precision_lists_the_existing_ones(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no int8 artifact for onnxruntime; it has fp32 .*--precisions int8"):
        open_bundle(write(tmp_path)).artifact("int8")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "../pets"}, "name is '../pets'"),
        ({"version": 0}, "versions count from 1"),
        ({"classes": ["cats"]}, "at least two different names"),
        ({"classes": ["cats", "cats"]}, "at least two different names"),
        ({"artifacts": []}, "artifacts is empty"),
        ({"format": 99}, "format is 99"),
        ({"surprise": 1}, "surprise"),
        ({"classes": None}, "classes|NoneType"),
        ({"format": 1}, "this pawserve reads format 2: export the run again"),
        ({"views_version": 1}, "made for version 1 of the views; .* Export again"),
        ({"temperatures": {"1": 2.0}}, "2.0 for one view, and temperature is 1.0"),
        ({"temperatures": {"3": 1.0}}, "None for one view"),
        ({"temperatures": {"1": 1.0, "5": 0}}, "each with a temperature above 0"),
        ({"temperatures": {"1": 1.0, "0": 1.0}}, "numbers of views, 1 to 64"),
        ({"recommended_views": 0}, "recommended_views is 0; it must be 1 to 64"),
        ({"adaptive": {"threshold": 0.9, "views": 99}}, "adaptive.views is 99"),
        ({"adaptive": {"threshold": 2}}, "threshold is 2; it must be a probability"),
        ({"metrics": {"accuracy": 0.99}}, "accuracy is 0.99; it must have value, lower and upper"),
        ({"metrics": {"accuracy": {"value": 0.9, "lower": 0.8}}}, "must have value, lower and upper"),
        ({"metrics": {"accuracy": {"value": 99, "lower": 98, "upper": 100}}}, "each 0 to 1"),
    ],
)
def test_an_invalid_manifest_is_rejected(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    fields = {**json.loads(manifest().to_json()), **changes}
    with pytest.raises(BundleError, match=complaint):
        open_bundle(write(tmp_path, json.dumps(fields)))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", ".hidden", ""])
def test_an_artifact_cannot_be_outside_its_bundle(name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        replace(manifest().artifacts[0], file=name)


@pytest.mark.parametrize("field", ["classes", "preprocess", "artifacts", "mean", "temperatures"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    fields = json.loads(manifest().to_json())
    del fields[field]
    with pytest.raises(BundleError, match=field):
        open_bundle(write(tmp_path, json.dumps(fields)))


@pytest.mark.parametrize("content", ["{", "[]", "null", "1", '"x"', "\ufeff{}"])
def test_other_files_are_not_manifests(tmp_path: Path, content: str) -> None:
    with pytest.raises(BundleError):
        open_bundle(write(tmp_path, content))


def test_another_version_of_the_preprocessing_is_rejected(tmp_path: Path) -> None:
    fields = json.loads(manifest().to_json())
    fields["preprocess"]["pixels_version"] = PIXELS_VERSION + 1
    with pytest.raises(BundleError, match="the pixels would differ"):
        open_bundle(write(tmp_path, json.dumps(fields)))


def test_the_error_of_a_folder_without_manifest_says_what_a_bundle_is(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="models/NAME/VERSION written by"):
        open_bundle(tmp_path)
