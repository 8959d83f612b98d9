"""The Python examples of docs/clients.md and docs/open-inference.md."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.bundles import write_bundle
from tests.support.commands import ROOT
from tests.support.images import encoded
from tests.support.servers import running_server

EXAMPLES = [
    example
    for page in ("clients.md", "open-inference.md")
    for example in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_bundle(folder / "models", "pets")
    (folder / "photos").mkdir()
    for name in ("cat.jpg", "photos/a.jpg", "photos/b.jpg"):
        (folder / name).write_bytes(encoded(Image.new("RGB", (80, 60), "red"), "JPEG"))
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with running_server(folder / "models", folder / "state") as address:
        yield address


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_runs(folder: Path, address: str, example: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", example.replace("127.0.0.1:50051", address)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert not finished.stderr
    assert "red" in finished.stdout or "models/pets/versions/1" in finished.stdout
