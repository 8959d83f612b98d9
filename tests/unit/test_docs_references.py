"""Every path, module, option, link and anchor that the documentation names exists, and pages stay short."""

import argparse
import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from serving.cli.parser import COMMANDS, build_parser
from tests.support.commands import ROOT
from tests.support.pages import DOCS, PACKAGES, PAGES, README, anchors, blocks, prose

COMMENTED = [
    path
    for pattern in ("deploy/**/*", "Dockerfile", "compose.yaml", "Makefile", "proto/**/*.proto", "buf.yaml")
    for path in sorted(ROOT.glob(pattern))
    if path.is_file() and path.suffix not in (".txt", ".json", ".pyc")
]
FOLDERS = "serving|training|export|benchmarks|tests|deploy|docs|proto|examples"
PATHS = re.compile(rf"(?<![\w/.~-])(?:{FOLDERS})/[\w./-]*[\w/]")
MODULES = re.compile(r"(?<![\w/.-])(?:serving|training|export|benchmarks|tests|examples)(?:\.[A-Za-z_]\w*)+(?![\w/])")
LINKS = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MADE_BY_COMMANDS = {"deploy/kubernetes/secrets/token.key", "deploy/kubernetes/secrets/statistics-url"}
MAX_PAGE_LINES = 200


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(path: Path) -> str:
    """A page, or the comments of another file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    return "\n".join(re.findall(r"(?:#|//)(.*)", text)) + (text if path.suffix == ".py" else "")


@pytest.mark.parametrize("path", [*PAGES, *COMMENTED], ids=name)
def test_paths_exist(path: Path) -> None:
    named = {each for each in PATHS.findall(text_of(path)) if not re.search(r"[A-Z]{3}|XX", each)}
    assert {each for each in named - MADE_BY_COMMANDS if not (ROOT / each).exists()} == set()


@pytest.mark.parametrize("path", [*PAGES, *COMMENTED], ids=name)
def test_modules_and_their_names_exist(path: Path) -> None:
    assert {each for each in MODULES.findall(text_of(path)) if not is_defined(each)} == set()


def is_defined(dotted: str) -> bool:
    """Whether a module, or a name within a module, exists; files such as training.md count as paths."""
    if dotted.endswith((".md", ".log", ".in", ".txt")):
        return True
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:end])
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if file.exists():
            return end == len(parts) or parts[end] in names_in(file)
    return False


@cache
def names_in(file: Path) -> set[str]:
    """The names that a module defines or imports at its top level."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_anchors_resolve(page: Path) -> None:
    broken = []
    for link in LINKS.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, fragment = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (fragment and fragment not in anchors(file)):
            broken.append(link)
    assert broken == []


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(README.parent / link.partition("#")[0]).resolve() for link in LINKS.findall(prose(README))}
    not_linked = {name(page) for page in DOCS} - {name(page) for page in linked if page.is_relative_to(ROOT)}
    assert not_linked <= {"docs/design/containers.md"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_are_short(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= MAX_PAGE_LINES


OF_OTHER_PROGRAMS = {
    *("--cap-drop", "--format", "--go_opt", "--gpus", "--gpus-per-node", "--help", "--hostname", "--local-addr"),
    *("--network", "--requeue", "--shm-size", "--signal", "--time", "--target", "--volume", "--check"),
}
"""Options of docker, podman, torchrun, Slurm and others that the prose mentions."""


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The options of a parser and of its subparsers."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from options_of(subparser)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_in_the_prose_exist(page: Path) -> None:
    mentioned = {
        option for span in re.findall(r"`([^`]+)`", prose(page)) for option in re.findall(r"--[a-z][\w-]*", span)
    }
    of_serving = {option for command in COMMANDS for option in options_of(build_parser(command))}
    known = of_serving | options_in_sources() | OF_OTHER_PROGRAMS
    assert {each for each in mentioned - known if not each.startswith("--stages")} == set()


@cache
def options_in_sources() -> set[str]:
    """Options of `training` and `export`, which are fields of dataclasses, and those of other programs of ours."""
    found = set()
    for package in ("training", "export", "benchmarks", "deploy", "proto"):
        for file in (ROOT / package).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            found |= set(re.findall(r'"(--[a-z][\w-]*)"', text))
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ClassDef):
                    fields = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
                    found |= {f"--{each.id.replace('_', '-')}" for each in fields if isinstance(each, ast.Name)}
    return found | {"--recipe"}


def test_every_room_is_described() -> None:
    described = (ROOT / "docs/design/rooms.md").read_text(encoding="utf-8")
    rooms = {file.parent for package in PACKAGES for file in (ROOT / package).glob("*/__init__.py")}
    missing = [name(room) for room in rooms if not re.search(rf"`({name(room)}|{room.name})`", described)]
    assert missing == []


def test_every_language_of_a_block_has_a_meaning() -> None:
    known = {"", "console", "sh", "python", "json", "yaml", "toml", "nginx", "haproxy"}
    assert {block.language for page in PAGES for block in blocks(page)} <= known
