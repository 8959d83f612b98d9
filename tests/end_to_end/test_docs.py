"""The commands and programs of the README and of docs/ work.

Commands in `console` blocks and `python` blocks are run, page by page, in their order. Commands in `sh` blocks need
more than a test has (a GPU, a cluster, a database, or no end): those of our packages are parsed by their own parsers.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from serving.cli import pawserve
from serving.web.settings import DEFAULT_ADDRESS
from tests.support.bundles import write_bundle
from tests.support.certificates import Authority
from tests.support.commands import ROOT, WarmProcess, main_of
from tests.support.images import encoded
from tests.support.pages import DOCS, PAGES, README, Block, blocks, parse, python_commands

ADDRESS = re.compile(r"(127\.0\.0\.1|0\.0\.0\.0|localhost):\d+")
VERSION = re.compile(r"\bpets[/ ](\d+)")
HTTP_PORT = DEFAULT_ADDRESS.rpartition(":")[2]
RUN = [page for page in [README, *DOCS] if any(block.language in ("console", "python") for block in blocks(page))]
TINY = "--arch test_resnet --weights none --sizes 32"
"""The pages' networks take minutes, or a download."""
FEWER = "sample --per-class 40 --valid-per-class 20"
"""The README draws fewer images here, so that the commands after that take less time."""
NOT_RUN_HERE = ("make ", "docker ")
"""`make demo` has a test of its own, and tests/containers runs the `docker` commands."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def folder(tmp_path: Path, fitted: Path, drawings: Path) -> Path:
    """What the pages take for granted: images, runs, certificates. Pages that serve a model have one too."""
    (tmp_path / "runs").mkdir()
    for run in ("pets", "quick", "course"):
        (tmp_path / "runs" / run).symlink_to(fitted)
    (tmp_path / "images").symlink_to(drawings)
    (tmp_path / "cat.jpg").write_bytes(encoded(Image.new("RGB", (80, 60), "red"), "JPEG"))
    (tmp_path / "notes.txt").write_text("not an image")
    Authority(tmp_path).issue("server")
    return tmp_path


class Session:
    """Runs the commands of one page in a folder, with at most one server at a time."""

    def __init__(self, folder: Path, cache: Path, versions: set[int]) -> None:
        self._folder = folder
        self._versions = versions
        self._environment = {"XDG_CACHE_HOME": str(cache)}
        self._server: WarmProcess | None = None
        self._http_address = ""

    def run(self, block: Block) -> None:
        """Run all commands of a block, or the program that it is."""
        if block.language == "python":
            self._program(block.text)
        elif block.language == "console":
            for command in block.commands():
                if not command.startswith(NOT_RUN_HERE):
                    self._command(command)
        elif block.language == "toml":  # its first line is a comment: the name of the file
            (self._folder / block.text.removeprefix("# ").partition(":")[0]).write_text(block.text, encoding="utf-8")

    def close(self) -> None:
        """Stop the server."""
        if self._server is None:
            return
        server, self._server = self._server, None
        try:
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0, server.stderr
        finally:
            server.close()

    def _command(self, command: str) -> None:
        words = self._words(command)
        if words[0] == "pawserve":
            delegate = pawserve.COMMANDS[words[1]]
            words = ["python", "-m", delegate.package, delegate.command, *words[2:]]
        python, module, package, verb, *arguments = words
        assert (python, module) == ("python", "-m"), f"{command}: put what cannot be run here into an sh block"
        out = arguments.pop() if ">" in arguments else None
        arguments = [argument for argument in arguments if argument != ">"]
        if package == "serving" and verb == "serve":
            self._serve(arguments)
            return
        if verb == "tune":
            arguments += ["--seconds", "0.1"]
        if package == "serving" and verb in ("predict", "stats", "label", "health", "models", "promote"):
            arguments = [self._placed(argument) for argument in arguments]
        finished = WarmProcess(main_of, package, verb, *arguments, folder=self._folder, **self._environment).finish()
        assert finished.returncode == 0, f"{command}\n{finished.stderr}"
        if out is not None:
            (self._folder / out).write_text(finished.stdout)

    def _serve(self, arguments: list[str]) -> None:
        self.close()
        if not (self._folder / "models").exists():
            for version in self._versions:
                write_bundle(self._folder / "models", "pets", version, classes=("cats", "dogs", "others"))
        arguments = [*arguments, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        if "--metrics" in arguments:
            arguments += ["--metrics", "127.0.0.1:0"]
        self._server = WarmProcess(main_of, "serving", "serve", *arguments, folder=self._folder, **self._environment)
        ready = self._server.printed(r"ready on (127\.0\.0\.1:\d+): .*HTTP on https?://(127\.0\.0\.1:\d+)")
        self._environment["PAWSERVE_SERVER"], self._http_address = ready[1], ready[2]

    def _address(self) -> str:
        """The server's; one with the defaults is started for a page that starts none."""
        if self._server is None:
            self._serve(["--models", "models", "--state", "state"])
        return self._environment["PAWSERVE_SERVER"]

    def _placed(self, text: str) -> str:
        """A text with the address that the server has here."""
        own = self._address()
        return ADDRESS.sub(lambda found: self._http_address if found[0].endswith(HTTP_PORT) else own, text)

    def _program(self, text: str) -> None:
        finished = subprocess.run(
            [sys.executable, "-W", "error", "-c", self._placed(text)],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        assert not finished.stderr
        assert re.search(r"cats|dogs|others|models/pets/versions/1", finished.stdout)

    def _words(self, command: str) -> list[str]:
        """The words of a command, with its patterns of files expanded by the shell."""
        quoted = command.replace(" > ", " '>' ")
        printed = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {quoted}"], cwd=self._folder, capture_output=True, check=True
        )
        return printed.stdout.decode().split("\0")[:-1]


@contextmanager
def session(folder: Path, cache: Path, page: Path) -> Iterator[Session]:
    """A session with version 1 of the model, and the versions that the page names."""
    opened = Session(folder, cache, {1, *map(int, VERSION.findall(page.read_text(encoding="utf-8")))})
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", [page for page in RUN if page != README], ids=name)
def test_the_commands_of_a_page_work_in_their_order(page: Path, folder: Path, shared_cache: Path) -> None:
    with session(folder, shared_cache, page) as opened:
        for block in blocks(page):
            opened.run(Block(block.language, re.sub(r"( fit .*| find-lr .*)", rf"\1 {TINY}", block.text)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_readme_s_commands_work_in_their_order(tmp_path: Path) -> None:
    with session(tmp_path, tmp_path / "cache", README) as opened:
        for block in blocks(README):
            opened.run(Block(block.language, block.text.replace("sample --out", f"{FEWER} --out")))
    for file in ("runs/pets/report.html", "models/pets/1/model.json", "predictions.csv", "confusion.png"):
        assert (tmp_path / file).stat().st_size > 0


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_other_commands_of_a_page_are_accepted_by_their_parsers(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(page):
        if block.language not in ("sh", "console"):
            continue
        subprocess.run(["bash", "-n", "-c", "\n".join(block.commands())], check=True)
        for command in block.commands() if block.language == "sh" else ():
            for module, arguments in python_commands(command):
                try:
                    parse(module, arguments)
                except SystemExit as rejected:
                    pytest.fail(f"{command}: {rejected}\n{capsys.readouterr().err}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    spans = re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))
    commands = [each for block in blocks(page) if block.language in ("sh", "console") for each in block.commands()]
    named = {*spans, *(word for command in commands for word in re.findall(r"\bmake ([a-z-]+)", command))}
    assert named <= targets


def test_pages_show_commands() -> None:
    assert len(RUN) >= 10
