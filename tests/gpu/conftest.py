"""What GPU tests share: a GPU or a reason to skip, a bundle to work on, and one table of what was measured."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.bundle import Bundle, open_bundle
from serving.cuda import CudaError, Gpu, find_gpu
from tests.commands import run_here

REPORT = "PAWSERVE_GPU_REPORT"
"""Names a file to write the measurements to, as JSON."""
ALL = ("--precisions", "fp32", "fp16", "int8", "int8-trt")
LOOSE = ("--min-agreement", "0.6", "--max-accuracy-loss", "0.4", "--max-diff-fp16", "0.05")

_measured: list[dict[str, object]] = []


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    try:
        return find_gpu()
    except CudaError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def measured() -> Iterator[list[dict[str, object]]]:
    """Rows that tests add: `what`, then any figures."""
    yield _measured
    if (path := os.environ.get(REPORT)) and _measured:
        Path(path).write_text(json.dumps(_measured, indent=2) + "\n", encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for row in _measured:
        figures = ", ".join(f"{name} {value}" for name, value in row.items() if name != "what")
        terminalreporter.write_line(f"{row['what']}: {figures}")


@pytest.fixture(scope="session")
def bundle(gpu: Gpu, drawings: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """All precisions: the bundle that PAWSERVE_BUNDLE names, or one of a small network on drawings."""
    if given := os.environ.get("PAWSERVE_BUNDLE"):
        return open_bundle(Path(given))
    folder = tmp_path_factory.mktemp("gpu")
    for command in (
        (
            *("training", "fit", "--data", drawings, "--run", folder / "run", "--cache", shared_cache),
            *("--arch", "test_resnet", "--weights", "none"),
        ),
        ("export", "bundle", "--run", folder / "run", "--models", folder / "models", "--name", "pets", *ALL, *LOOSE),
    ):
        finished = run_here(*command)
        assert finished.returncode == 0, finished.stderr
    return open_bundle(folder / "models" / "pets" / "1")
