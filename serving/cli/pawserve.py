"""`pawserve COMMAND`: the commands of `training`, `export` and `serving` under one name.

Each is the command that `python -m PACKAGE` runs. Its package is imported when the command is chosen, by name: this
room may not import training or export, and help must not load torch.
"""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module

from serving.cli import parser
from serving.cli.errors import DONE, FAILED, INTERRUPTED, WRONG_USE
from serving.system.output import accept_any_text, describe_version, flush_output

PROGRAM = "pawserve"


@dataclass(frozen=True)
class Delegate:
    """A command of `python -m PACKAGE COMMAND`."""

    package: str
    command: str
    help: str


TRAINING = {
    "train": Delegate("training", "fit", "train a classifier on a folder of images; write a run with a report"),
    "find-lr": Delegate("training", "find-lr", "run the learning-rate range test; plot the losses"),
    "evaluate": Delegate("training", "evaluate", "evaluate a run on a folder of labelled images"),
    "compare-runs": Delegate("training", "compare", "compare finished runs: accuracy, curves, classes, settings"),
    "check": Delegate("training", "check", "check a data set: mislabelled images, copies, dark and blurred images"),
    "sample": Delegate("training", "sample", "draw a small data set of cats and dogs"),
    "fetch-pets": Delegate("training", "fetch-pets", "download the Oxford-IIIT Pet images"),
    "shard": Delegate("training", "shard", "pack images into WebDataset shards"),
}
EXPORT = {
    "export": Delegate("export", "bundle", "export a run to ONNX in every precision, with parity checks"),
    "engine": Delegate("export", "engine", "build a bundle's TensorRT engines"),
    "triton": Delegate("export", "triton", "write a bundle as a model repository for Triton"),
    "inspect": Delegate("export", "inspect", "show a bundle's files, sizes, parity and speed"),
}
SERVING = {name: Delegate("serving", name, text) for name, text in parser.COMMANDS.items()}
COMMANDS = TRAINING | EXPORT | SERVING
_GROUPS = (("Train", TRAINING), ("Export", EXPORT), ("Serve, classify and measure", SERVING))


def main() -> int:
    """The console script."""
    return run(sys.argv[1:])


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        Its exit code: 0 done, 1 failed, 2 wrong use, 130 interrupted.
    """
    accept_any_text()
    if not arguments or arguments[0] in ("-h", "--help", "--version"):
        text = describe_version() if arguments[:1] == ["--version"] else _help()
        return _print(text, DONE if arguments else WRONG_USE)
    name = arguments[0]
    if name not in COMMANDS:
        same = [ours for ours, command in COMMANDS.items() if command.command == name]
        meant = same or get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {meant[0]}?" if meant else f"there are {', '.join(COMMANDS)}"
        print(f"{PROGRAM}: there is no command {name!r}; {hint}", file=sys.stderr)
        return WRONG_USE
    command = COMMANDS[name]
    try:
        package = import_module(f"{command.package}.__main__")
    except ModuleNotFoundError as error:
        return _report_missing(name, command, error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return int(package.main([command.command, *arguments[1:]], called_as=f"{PROGRAM} {name}"))


def _print(text: str, code: int) -> int:
    try:
        print(text)
        flush_output()
    except OSError as error:
        return parser.report_lost_output(error)
    return code


def _report_missing(name: str, command: Delegate, error: ModuleNotFoundError) -> int:
    print(
        f"{PROGRAM} {name}: the package {error.name} is missing; install what this command needs: "
        f"pip install 'pawserve[{command.package}]'",
        file=sys.stderr,
    )
    return FAILED


def _help() -> str:
    lines = [f"usage: {PROGRAM} COMMAND [OPTIONS]", "", "From labelled images to a deployed classifier."]
    width = max(map(len, COMMANDS)) + 4
    for title, commands in _GROUPS:
        lines += ["", f"{title}:"]
        for name, command in commands.items():
            lines += textwrap.wrap(
                command.help,
                max(40, shutil.get_terminal_size().columns - 1),
                initial_indent=f"  {name}".ljust(width),
                subsequent_indent=" " * width,
            )
    return "\n".join([*lines, "", "Each command takes --help; --version prints the version."])
