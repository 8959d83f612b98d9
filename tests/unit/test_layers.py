"""Imports follow the table of rooms: no circles, nothing upward, nothing private across rooms, no crowded folder."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.support.commands import ROOT

PACKAGES = ("serving", "training", "export", "benchmarks")
MAY_IMPORT = {
    "serving": {"serving"},
    "training": {"training", "serving"},
    "export": {"export", "training", "serving"},
    "benchmarks": {"benchmarks", "export", "training", "serving"},
}
SERVING_ROOMS = (
    "pb",
    "system",
    "context",
    "image",
    "bundle",
    "engine",
    "batching",
    "tokens",
    "comparison",
    "statistics",
    "models",
    "shadows",
    "security",
    "observability",
    "api",
    "rpc",
    "web",
    "settings",
    "startup",
    "state",
    "listeners",
    "server",
    "process",
    "processes",
    "client",
    "cli",
    "ray",
)
TRAINING_ROOMS = (
    "console",
    "versions",
    "hardware",
    "distributed",
    "recipes",
    "samples",
    "networks",
    "data",
    "features",
    "evaluation",
    "checks",
    "fitting",
    "runs",
    "reports",
    "tracking",
    "comparison",
    "fit",
    "evaluate",
    "find_lr",
    "check",
    "predict",
    "command",
    "cli",
)
EXPORT_ROOMS = (
    "inference",
    "graphs",
    "checks",
    "mixed_precision",
    "calibrate",
    "adaptive",
    "engine_layers",
    "tensorrt_plan",
    "options",
    "cards",
    "engine_files",
    "bundle",
    "engine",
    "inspection",
    "triton",
)
BENCHMARK_ROOMS = (
    "common",
    "processes",
    "rounds",
    "in_process",
    "capacity",
    "serving",
    "peers",
    "training",
    "export",
    "gpu",
)
ROOMS = {
    "serving": SERVING_ROOMS,
    "training": TRAINING_ROOMS,
    "export": EXPORT_ROOMS,
    "benchmarks": BENCHMARK_ROOMS,
}
"""Rooms and top modules of a package, lowest first: each imports only those before it."""
CLIENT_MAY_IMPORT = {"client", "system", "pb"}
MAX_MODULES = 16
"""Of each folder, those of its subfolders not counted."""


@dataclass(frozen=True)
class Import:
    """One imported name, wherever in its file it is imported."""

    importer: str
    imported: str
    name: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.name} of {self.imported}"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, Path]:
    """All modules of the packages, by name; generated ones too."""
    return {module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


@cache
def imports() -> tuple[Import, ...]:
    """All imports of our modules by our modules, generated code aside."""
    return tuple(each for name, path in modules().items() if ".pb" not in name for each in imports_of(name, path))


def imports_of(importer: str, path: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                imported = submodule if submodule in modules() else node.module
                yield Import(importer, imported, alias.name, node.lineno)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, alias.name, "", node.lineno)


def room(module: str) -> str:
    """A module's room: its folder, or itself if it stands at the top of its package."""
    package, *inner = module.split(".")
    return f"{package}.{inner[0]}" if inner else package


def folder(module: str) -> str:
    """A module's folder; a module beside subfolders, which may use it or be used by it, stands for itself."""
    path = modules()[module]
    return module if any(path.parent.glob("*/*.py")) else module_name(path.parent / "__init__.py")


@cache
def allowed_by_docstring(room: str) -> set[str] | None:
    """The rooms that a room's docstring names after "May import"; None if it names a range, or has no folder."""
    package, *inner = room.split(".")
    docstring = ast.get_docstring(ast.parse(modules()[room].read_text())) or ""
    text = " ".join(docstring.split()).partition("May import ")[2]
    if not inner or modules()[room].name != "__init__.py" or text.startswith("every"):
        return None
    names = {name if name in modules() else f"{package}.{name}" for name in re.findall(r"`([\w.]+)`", text)}
    assert names <= modules().keys()
    return names | {room} | ({"serving"} if package == "training" else set())


def ours() -> list[Import]:
    return [each for each in imports() if each.imported in modules() and each.imported != each.importer]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_lies_before_it(package: str) -> None:
    wrong = [
        str(each)
        for each in imports()
        if each.importer.split(".")[0] == package
        and each.imported.split(".")[0] in PACKAGES
        and each.imported.split(".")[0] not in MAY_IMPORT[package]
    ]
    assert wrong == []


def test_serving_never_imports_torch() -> None:
    assert [str(each) for each in imports() if each.importer.startswith("serving") and "torch" in each.imported] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = defaultdict(set)
    for each in ours():
        graph[each.importer].add(each.imported)
    assert circles(graph) == []


def test_no_folders_import_each_other_in_a_circle() -> None:
    graph = defaultdict(set)
    for each in ours():
        graph[folder(each.importer)].add(folder(each.imported))
    assert circles(graph) == []


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_only_rooms_above_them_in_the_table(package: str) -> None:
    order = {f"{package}.{name}": position for position, name in enumerate(ROOMS[package])}
    wrong = [
        str(each)
        for each in ours()
        if each.importer.startswith(f"{package}.")
        and each.importer != f"{package}.__main__"
        and each.imported.startswith(f"{package}.")
        and order[room(each.imported)] > order[room(each.importer)]
    ]
    assert wrong == []


def test_rooms_import_what_their_docstrings_allow() -> None:
    wrong = [
        str(each)
        for each in ours()
        if (allowed := allowed_by_docstring(room(each.importer))) is not None
        and not f"{each.imported}.".startswith(tuple(f"{name}." for name in allowed))
    ]
    assert wrong == []


def test_the_client_needs_nothing_of_the_server() -> None:
    wrong = [
        str(each)
        for each in ours()
        if room(each.importer) == "serving.client" and each.imported.split(".")[1] not in CLIENT_MAY_IMPORT
    ]
    assert wrong == []


@pytest.mark.parametrize("use_case", ["serving.api.classification", "serving.api.labels", "serving.api.errors"])
def test_the_use_cases_need_no_protocol(use_case: str) -> None:
    reached, waiting = {use_case}, [use_case]
    while waiting:
        importer = waiting.pop()
        found = {each.imported for each in imports() if each.importer == importer} - reached
        reached |= found
        waiting += found & modules().keys()
    protocols = ("grpc", "google", "serving.pb")
    assert [module for module in sorted(reached) if module.startswith(protocols)] == []


def test_private_names_stay_in_their_room() -> None:
    wrong = [
        str(each)
        for each in ours()
        if each.name.startswith("_") and not each.name.startswith("__") and room(each.importer) != room(each.imported)
    ]
    assert wrong == []


def test_no_folder_is_crowded() -> None:
    folders = Counter(
        path.parent for name, path in modules().items() if ".pb" not in name and path.name != "__init__.py"
    )
    crowded = {str(folder.relative_to(ROOT)): count for folder, count in folders.items() if count > MAX_MODULES}
    assert crowded == {}


def test_every_room_says_what_it_is() -> None:
    silent = [
        name
        for name, path in modules().items()
        if path.name == "__init__.py" and ".pb" not in name and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node (Tarjan, SIAM Journal on Computing 1(2), 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in list(graph):
        if node not in number:
            visit(node)
    return found
