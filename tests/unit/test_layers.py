"""Imports run against the flow of data: serving <- training <- export."""

import ast
from pathlib import Path

import pytest

from tests.commands import ROOT

MAY_IMPORT = {"serving": {"serving"}, "training": {"training", "serving"}, "export": {"export", "training", "serving"}}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_lies_before_it(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert imported(path) & set(MAY_IMPORT) <= MAY_IMPORT[package], path


def test_serving_never_imports_torch() -> None:
    for path in (ROOT / "serving").rglob("*.py"):
        assert "torch" not in imported(path), path
