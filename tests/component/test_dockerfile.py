"""The Dockerfile rejects base images with an unsupported Python; make container-check builds on a supported one."""

import re
import subprocess
import sys

import pytest

from tests.support.commands import ROOT
from tests.support.waiting import LIMIT_S

CHECK = re.compile(r'RUN python3 -c "(import sys; [^"]+)"')


@pytest.mark.parametrize(("version", "said"), [("3.11.2", ""), ("3.12.1", "_IMAGE has Python 3.12.1; ")])
def test_base_images_with_another_python_are_rejected_before_pip_runs(version: str, said: str) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    bases = re.findall(r"^FROM \$\{(\w+)\} AS (?:wheels|gpu-runtime)$", dockerfile, re.MULTILINE)
    checks = CHECK.findall(dockerfile.replace("\\\n", ""))
    assert len(bases) == len(checks) == 2
    for base, check in zip(bases, checks, strict=True):
        numbers = tuple(map(int, version.split(".")))
        as_if = f"import sys; sys.version, sys.version_info = '{version} (main)', {numbers}; "
        finished = subprocess.run(
            [sys.executable, "-c", check.replace("import sys; ", as_if, 1)],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert finished.returncode == bool(said)
        assert said in finished.stderr
        assert (base in finished.stderr) == bool(said)
