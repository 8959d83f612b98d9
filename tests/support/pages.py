"""The pages of the documentation: their code blocks, commands, links and the names that they mention."""

import argparse
import importlib
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import tyro

from serving.cli import pawserve
from tests.support.commands import ROOT

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", *DOCS]
PACKAGES = ("training", "export", "serving")
CONTAINERS = re.compile(r"pawserve:(serving-cpu|serving-gpu|training)\Z")
STARTS_PYTHON = re.compile(r"\bpython |^pawserve |torchrun|sbatch|docker run")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    """`console`: commands that the tests run; `sh`: commands that they parse; `python`: run; others are data."""
    text: str

    def commands(self) -> list[str]:
        """Its commands, without comments, each on one line."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        without_comments = (re.sub(r"(^|\s)# .*", "", line).strip() for line in lines)
        return [line for line in without_comments if line]


def blocks(page: Path) -> list[Block]:
    return [Block(*match.groups()) for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def prose(page: Path) -> str:
    """The text of a page outside of code blocks."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return text.replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)}


class _ParsedError(BaseException):
    """Raised instead of running a command, once its arguments have been parsed."""


def python_commands(command: str) -> Iterator[tuple[str, list[str]]]:
    """The Python programs that a shell command starts, as (module, arguments), also in containers and on nodes."""
    if not STARTS_PYTHON.search(command):
        return
    words = shlex.split(re.sub(r"\s>.*", "", command))
    for index, word in enumerate(words):
        if index == 0 and word == "pawserve":
            delegate = pawserve.COMMANDS[words[1]]
            yield delegate.package, [delegate.command, *words[2:]]
        elif word == "-m" and index and Path(words[index - 1]).name.startswith("python"):
            yield words[index + 1], words[index + 2 :]
        elif word == "torchrun" and "-m" in words[index:]:
            after = words[words.index("-m", index) + 1 :]
            yield after[0], after[1:]
        elif word.endswith(("deploy/torchrun/launch.sh", "deploy/slurm/train.sbatch")):
            yield "training", ["fit", "--auto-resume", *words[index + 1 :]]
        elif (image := CONTAINERS.match(word)) and "run" in words[:index]:
            inner = words[index + 1 :]
            if image[1] == "training":
                yield inner[0], inner[1:]
            elif inner and inner[0] != "engines":  # a command of the image itself
                yield "serving", inner


def parse(module: str, arguments: Sequence[str]) -> None:
    """Parse the arguments of `python -m module` with the parser of the command itself, without running the command.

    Raises:
        SystemExit: if the command rejects them.
    """

    def then_stop(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> NoReturn:
            function(*args, **kwargs)
            raise _ParsedError

        return wrapped

    argv = [module, *arguments]
    with (
        patch.object(argparse.ArgumentParser, "parse_args", then_stop(argparse.ArgumentParser.parse_args)),
        patch.object(tyro, "cli", then_stop(tyro.cli)),
        patch.object(sys, "argv", argv),
    ):
        try:
            if module in PACKAGES:
                raise SystemExit(importlib.import_module(f"{module}.__main__").main(list(arguments)))
            program = importlib.import_module(module)
            if hasattr(program, "__path__"):
                program = importlib.import_module(f"{module}.__main__")
            raise SystemExit(program.main())
        except _ParsedError:
            return
