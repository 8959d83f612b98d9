"""No telemetry: nothing about training and serving is reported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.waiting import LIMIT_S

PROGRAM = "import {package}, onnxruntime; onnxruntime.SessionOptions()"


@pytest.mark.parametrize("package", ["serving", "training", "export"])
def test_onnx_runtime_creates_no_device_identifier_and_stores_no_reports(package: str, tmp_path: Path) -> None:
    elsewhere = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    unset = {"ORT_DISABLE_TELEMETRY", "CI", "ORT_RUNNING_UNIT_TESTS"}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | elsewhere
    program = PROGRAM.format(package=package)
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True, timeout=LIMIT_S)
    assert list(tmp_path.rglob("*")) == []
