"""`make check` rejects changes to proto/ that break clients, and accepts additions."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.waiting import LIMIT_S

CLASSIFIER = "pawserve/v1/classifier.proto"


@pytest.mark.parametrize(
    ("pattern", "replacement", "complaint"),
    [
        (r"int32 views = (\d+);", r"int64 views = \1;", "int64"),
        (r"string token = (\d+);", "string token = 99;", "was deleted"),
        (r"rpc ListModels", "rpc ListAllModels", "ListModels"),
        (r"string token = (\d+);", r"string token = \1;\n  string colour_of_fur = 99;", ""),
    ],
)
def test_changes_that_break_clients_are_rejected_and_additions_are_accepted(
    tmp_path: Path, pattern: str, replacement: str, complaint: str
) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    file = tmp_path / "proto" / CLASSIFIER
    changed, count = re.subn(pattern, replacement, file.read_text(), count=1)
    assert count == 1
    file.write_text(changed)
    check = [sys.executable, tmp_path / "proto" / "check.py"]
    finished = subprocess.run(check, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    said = finished.stdout + finished.stderr
    assert (finished.returncode == 0) == (not complaint), said
    assert complaint in said
