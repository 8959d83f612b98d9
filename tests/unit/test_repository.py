"""Which versions are found in a folder, and how they are served, used and retired."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.bundle.folder import find_bundles, open_version
from serving.bundle.manifest import BundleError
from serving.bundle.model_version import ModelVersion
from serving.models.loader import load_model
from serving.models.repository import ModelNotFound, ModelRepository, State
from tests.support.bundles import OPTIONS, write_bundle
from tests.support.waiting import eventually


def served(folder: Path, *wanted: str) -> list[str]:
    return [bundle.manifest.resource for bundle in find_bundles(folder, wanted)]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """cats 2 and 10, dogs 1, and files that are no versions."""
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
def test_a_model_that_is_not_there_is_an_error(models: Path, wanted: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        find_bundles(models, [wanted])


def test_a_folder_that_was_renamed_is_an_error(models: Path) -> None:
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


@pytest.fixture
def repository(models: Path) -> Iterator[ModelRepository]:
    """Serves cats 2."""
    repository = ModelRepository()
    repository.add(load_model(open_version(models, CATS_2), OPTIONS))
    yield repository
    repository.close()


CATS_2, CATS_10 = ModelVersion("cats", 2), ModelVersion("cats", 10)


def states(repository: ModelRepository) -> dict[str, State]:
    return {str(status.version): status.state for status in repository.statuses}


def test_a_retired_version_is_closed_after_its_last_user(models: Path, repository: ModelRepository) -> None:
    old = repository.find("cats", None)
    with repository.use(old), repository.use(old):
        repository.add(load_model(open_version(models, CATS_10), OPTIONS), retire=[CATS_2])
        assert repository.find("cats", None).manifest.version == 10
        assert states(repository) == {"cats/2": State.DRAINING, "cats/10": State.READY}
        assert asyncio.run(old.classifier.classify([np.zeros((64, 64, 3), np.uint8)]))
    assert eventually(lambda: states(repository) == {"cats/10": State.READY})


def test_a_retired_version_gets_no_new_users(repository: ModelRepository) -> None:
    old = repository.find("cats", 2)
    with repository.use(old):
        repository.retire([CATS_2], "unloaded")
        with pytest.raises(ModelNotFound, match="there is nothing now"), repository.use(old):
            pytest.fail("it was retired")


def test_a_version_that_is_loaded_again_replaces_the_earlier_one(models: Path, repository: ModelRepository) -> None:
    old = repository.find("cats", 2)
    repository.add(load_model(open_version(models, CATS_2), OPTIONS))
    with pytest.raises(ModelNotFound, match="has been replaced"), repository.use(old):
        pytest.fail("it was replaced")


def test_an_error_of_a_user_ends_its_use(repository: ModelRepository) -> None:
    model = repository.find("cats", 2)
    with pytest.raises(ZeroDivisionError), repository.use(model):
        raise ZeroDivisionError
    repository.retire([CATS_2], "unloaded")
    assert eventually(lambda: not repository.statuses)


def test_closing_the_repository_closes_versions_that_are_still_used(repository: ModelRepository) -> None:
    with repository.use(repository.find("cats", 2)):
        repository.retire([CATS_2], "unloaded")
        repository.close()
        assert not repository.statuses


def test_a_precision_that_the_bundle_lacks_is_an_error(models: Path) -> None:
    (bundle,) = find_bundles(models, ["dogs"])
    options = replace(OPTIONS, precision="int8")
    with pytest.raises(BundleError, match="no int8 artifact for onnxruntime; it has fp32"):
        load_model(bundle, options)
