"""Fixtures of container tests: the built images. The tests are skipped where the tools are missing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundles import write_bundle
from tests.support.containers.build import BASE, Images, build, build_demo, make_base, make_context
from tests.support.containers.storage import BUILD_S, Storage, missing_tools

HERE = Path(__file__).parent
ASKED = "PAWSERVE_CONTAINERS"
"""Set by `make container-check`: images take minutes to build, and much disk."""
KEPT = "PAWSERVE_CONTAINERS_FOLDER"
"""Names a folder that is kept, so that the next run finds the base there."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(2 * BUILD_S))


@pytest.fixture(scope="session")
def work() -> Iterator[Path]:
    """A folder that every user can read, unlike pytest's. It takes gigabytes and is removed at the end."""
    if not os.environ.get(ASKED):
        pytest.skip("builds images: make container-check")
    if missing := missing_tools():
        pytest.skip(f"needs {', '.join(missing)}: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("debootstrap, and buildah with chroot isolation, need root")
    folder = Path(tempfile.mkdtemp(prefix="pawserve-containers."))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def storage(work: Path) -> Iterator[Storage]:
    """The storage of images and containers; it holds the base image."""
    kept = os.environ.get(KEPT)
    folder = Path(kept) if kept else work / "storage"
    folder.mkdir(exist_ok=True)
    storage = Storage(folder)
    make_base(storage)
    yield storage
    storage.remove(images=not kept)


@pytest.fixture(scope="session")
def images(work: Path, storage: Storage) -> Images:
    """serving-cpu and serving-cpu-demo, on a base of Debian's own Python."""
    context = make_context(work)
    secrets = work / "secrets"
    secrets.mkdir(mode=0o700)
    cpu = build(storage, context, secrets)
    return Images(storage, cpu, build_demo(storage, context, cpu))


@pytest.fixture(scope="session")
def base() -> str:
    """The name of the base image."""
    return BASE


@pytest.fixture(scope="session")
def models(work: Path) -> Path:
    """A model folder that every user can read."""
    write_bundle(work / "models")
    return work / "models"
