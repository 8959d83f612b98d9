"""The tests keep to their folders: see the layout in CONTRIBUTING.md."""

import ast
from pathlib import Path

import pytest

from tests.support.commands import ROOT

PACKAGES = ("serving", "training", "export", "benchmarks", "examples", "deploy")
NOT_IN_UNIT_TESTS = {
    "export.checks.openvino_process.run_openvino",
    "grpc",
    "multiprocessing",
    "multiprocessing.get_context",
    "psycopg",
    "socket",
    "sqlite3",
    "subprocess",
    "tests.support.commands.WarmProcess",
    "tests.support.commands.run",
    "tests.support.commands.run_cold",
    "tests.support.commands.two_processes",
    "tests.support.kustomize",
    "tests.support.postgresql",
    "tests.support.servers",
}
"""Each is a way to another process, a server or a database."""

FILES = sorted((ROOT / "tests").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, and the names that it imports from them, as `module.name`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_test_file_is_imported_by_another_file(path: Path) -> None:
    ours = [name.split(".") for name in imports_of(path) if name.startswith("tests.")]
    assert [parts for parts in ours if any(part.startswith("test_") or part == "conftest" for part in parts[2:3])] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_test_imports_private_names(path: Path) -> None:
    ours = [name.split(".") for name in imports_of(path) if name.split(".")[0] in PACKAGES]
    assert [parts for parts in ours if any(part.startswith("_") and part != "__main__" for part in parts)] == []


@pytest.mark.parametrize(
    "folder", ["unit", "component", "end_to_end", "reliability", "containers", "gpu", "ray", "scale", "slurm"]
)
def test_support_code_lies_apart_from_the_tests(folder: str) -> None:
    others = [path.name for path in (ROOT / "tests" / folder).iterdir() if path.suffix == ".py"]
    assert [name for name in others if not name.startswith(("test_", "conftest", "__init__"))] == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "unit").glob("*.py")), ids=lambda path: path.stem)
def test_unit_tests_start_no_process_no_server_and_no_database(path: Path) -> None:
    assert imports_of(path) & NOT_IN_UNIT_TESTS == set()
