"""The images' requirements: each release has its hashes, and is the one that the tests run with."""

import re
import tomllib

import pytest

from deploy.containers.lock import FOLDER, LOCKS, Lock
from tests.support.commands import ROOT

RELEASE = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}( \\)?")
FROM_PYPI = [lock for lock in LOCKS if not lock.index]


def locked(lock: Lock) -> dict[str, str]:
    """Name -> release."""
    text = (ROOT / FOLDER / f"{lock.name}.txt").read_text(encoding="utf-8")
    return {normal(name): release for name, release in RELEASE.findall(text)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("lock", FROM_PYPI, ids=lambda lock: lock.name)
def test_every_release_has_hashes_and_nothing_says_where_it_came_from(lock: Lock) -> None:
    lines = (ROOT / FOLDER / f"{lock.name}.txt").read_text(encoding="utf-8").splitlines()[1:]
    for number, line in enumerate(lines):
        if not line.startswith(" "):
            assert re.fullmatch(RELEASE.pattern + r"( ; .+)? \\", line), line
            assert HASH.fullmatch(lines[number + 1].strip())
        else:
            assert HASH.fullmatch(line.strip()), line


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_releases_are_those_that_the_tests_run_with(lock: Lock) -> None:
    pinned = {normal(name): release for name, release in RELEASE.findall((ROOT / "constraints.txt").read_text("utf-8"))}
    assert {name: pinned[name] for name in locked(lock) if name in pinned} == {
        name: release for name, release in locked(lock).items() if name in pinned
    }


@pytest.mark.parametrize("lock", FROM_PYPI, ids=lambda lock: lock.name)
def test_what_pyproject_asks_for_is_there(lock: Lock) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*(project["dependencies"] if lock.extras else [])]
    wanted += [each for extra in lock.extras for each in project["optional-dependencies"][extra]]
    for source in lock.sources:
        wanted += [line for line in (ROOT / FOLDER / source).read_text("utf-8").splitlines() if line[:1].isalnum()]
    overrides = (ROOT / FOLDER / lock.overrides).read_text("utf-8") if lock.overrides else ""
    left_out = {normal(line.partition(";")[0].strip()) for line in overrides.splitlines() if line[:1].isalnum()}
    names = {normal(re.split(r"[\[<>=;\s]", each)[0]) for each in wanted} - left_out - {"pawserve"}
    assert names
    assert names <= set(locked(lock)), "make lock"


def test_serving_brings_no_torch() -> None:
    serving = [lock for lock in LOCKS if lock.name.startswith("serving")]
    assert len(serving) == 2
    for lock in serving:
        assert not {"torch", "torchvision", "timm", "triton"} & set(locked(lock))
