"""Which models a folder holds, which are served, and how they are named."""

from dataclasses import replace
from pathlib import Path

import pytest

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import BundleError
from serving.models.loader import load_model
from serving.models.repository import ModelNotFound, ModelRepository
from tests.support.bundles import OPTIONS, write_bundle


def served(folder: Path, *wanted: str) -> list[str]:
    return [bundle.manifest.resource for bundle in find_bundles(folder, wanted)]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """cats 2 and 10, dogs 1, and what is left lying about."""
    for name, version in (("cats", 2), ("cats", 10), ("dogs", 1)):
        write_bundle(tmp_path, name, version)
    (tmp_path / "cats" / ".11.partial").mkdir()
    (tmp_path / "cats" / "notes").mkdir()
    (tmp_path / "Empty folder").mkdir()
    (tmp_path / "README").write_text("")
    return tmp_path


def test_the_newest_version_of_every_name_is_served(models: Path) -> None:
    assert served(models) == ["models/cats/versions/10", "models/dogs/versions/1"]


def test_models_can_be_chosen(models: Path) -> None:
    assert served(models, "cats") == ["models/cats/versions/10"]
    assert served(models, "cats/2", "cats", "cats/2") == ["models/cats/versions/2", "models/cats/versions/10"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("birds", "no version of birds"),
        ("cats/3", "has no model.json"),
        ("../cats", "is not a model name"),
        ("cats/x", "is not a model name"),
    ],
)
def test_what_is_not_there_is_refused(models: Path, wanted: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        find_bundles(models, [wanted])


def test_a_folder_that_was_renamed_is_refused(models: Path) -> None:
    (models / "dogs").rename(models / "wolves")
    with pytest.raises(BundleError, match="holds models/dogs/versions/1"):
        find_bundles(models, [])


def test_a_repository_finds_the_newest_or_the_named_version(models: Path) -> None:
    repository = ModelRepository()
    try:
        for bundle in find_bundles(models, ["cats/2", "cats/10"]):
            repository.add(load_model(bundle, OPTIONS))
        assert repository.find("cats", None).manifest.version == 10
        assert repository.find("cats", 2).manifest.version == 2
        with pytest.raises(ModelNotFound, match="models/cats/versions/3 is not served here; there is models/cats/"):
            repository.find("cats", 3)
        assert [model.manifest.version for model in repository.models] == [2, 10]
    finally:
        repository.close()


def test_a_precision_that_the_bundle_lacks_is_refused(models: Path) -> None:
    (bundle,) = find_bundles(models, ["dogs"])
    options = replace(OPTIONS, precision="int8")
    with pytest.raises(BundleError, match="no int8 artifact for onnxruntime; it has fp32"):
        load_model(bundle, options)
