"""`predict`: classify image files."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from serving.cli.classify_files import FileResult, classify_files, describe, find_files, in_order
from serving.cli.connection import add_client_options, open_client
from serving.cli.errors import DONE, FAILED, INTERRUPTED, CommandError, UsageError
from serving.cli.options import model_resource, path, positive
from serving.cli.results import ResultsFile, to_dict
from serving.cli.signals import deferred_interrupt
from serving.client import Client, ClientError, Prediction
from serving.image.folders import Skipped, describe_skipped
from serving.system.output import print_json

CLASSES_ON_TERMINAL = 3
BAR_WIDTH = 20
MAX_NAME_WIDTH = 60


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `predict`."""
    parser.description = "Classify images and show the classes of each with their probabilities."
    parser.epilog = "If an image fails, the others are still shown, and the exit code is 1."
    add = parser.add_argument
    add("files", nargs="+", type=path, metavar="FILE", help="an image, or a folder of images")
    add_client_options(parser)
    add("--model", type=model_resource, default="", metavar="NAME[/VERSION]", help="the model (the only one served)")
    add("--views", type=positive, metavar="N", help="views of each image to average (what the server chose, usually 1)")
    add(
        "--adaptive",
        action="store_true",
        help="evaluate more views (--views, or what the export chose) only of images whose first view is uncertain",
    )
    add("--top-k", type=positive, metavar="K", help="classes to show of each image (all; on a terminal 3)")
    add("--label", default="", metavar="CLASS", help="the label of the images, to be recorded")
    add(
        "--out",
        type=path,
        metavar="FILE",
        help="write each result to FILE.csv or FILE.jsonl as soon as it is known, and show the progress",
    )
    add("--resume", action="store_true", help="continue the file of --out: skip the images that it has predictions of")
    add("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Classify the files; FAILED if one of them failed."""
    if arguments.resume and not arguments.out:
        raise UsageError("--resume continues the file of --out; give --out too")
    files, skipped = find_files(arguments.files)
    lines = describe_skipped(skipped)
    if not files:
        raise CommandError("\n".join(["the folder holds no images", *lines]))
    for line in lines:
        print(line, file=sys.stderr)
    with open_client(arguments) as client:
        if arguments.out:
            return _write(client, files, arguments)
        results = in_order(files, _classify(client, files, arguments))
        return _print_json(results, skipped) if arguments.json else _print(results, files, arguments)


def _classify(client: Client, files: list[Path], arguments: argparse.Namespace) -> Iterator[FileResult]:
    client.list_models()  # fails at once if the server is unreachable
    return classify_files(
        client,
        files,
        label=arguments.label,
        streams=max(1, len(arguments.server.split(","))),
        model=arguments.model,
        views=arguments.views,
        top_k=arguments.top_k,
        adaptive=arguments.adaptive,
    )


def _print_json(results: Iterator[FileResult], skipped: list[Skipped]) -> int:
    all_results = list(results)
    model = next((result.model for result in all_results if result.model), None)
    facts = [to_dict(result) for result in all_results]
    print_json({"model": model, "results": facts, "skipped": [each.to_json() for each in skipped]}, indent=2)
    return FAILED if any(not isinstance(result.outcome, Prediction) for result in all_results) else DONE


def _print(results: Iterator[FileResult], files: list[Path], arguments: argparse.Namespace) -> int:
    width = min(MAX_NAME_WIDTH, max(len(str(file)) for file in files))
    console = Console(highlight=False)
    failed = 0
    for result in results:
        failed += not isinstance(result.outcome, Prediction)
        console.print(_line(result, width, arguments.top_k or CLASSES_ON_TERMINAL), soft_wrap=True)
    if len(files) == 1 and isinstance(result.outcome, Prediction) and not arguments.label:
        print(f"to record the correct class: python -m serving label {result.outcome.token} CLASS")
    return FAILED if failed else DONE


def _write(client: Client, files: list[Path], arguments: argparse.Namespace) -> int:
    """Write results to a file as they arrive. Whatever ends this, the results so far are kept and counted."""
    try:
        file = ResultsFile(arguments.out, resume=arguments.resume)
    except (OSError, ValueError) as error:
        raise CommandError(_reason(error)) from error
    counts: Counter[str] = Counter()
    begin = time.monotonic()
    with file:
        remaining = [each for each in files if str(each) not in file.done]
        try:
            with _progress(len(remaining)) as advance:
                for result in _classify(client, remaining, arguments) if remaining else ():
                    with deferred_interrupt():  # so that what is written is counted
                        file.write(result)
                        failure = None if isinstance(result.outcome, Prediction) else result.outcome
                        counts["ok" if failure is None else describe(failure)[0]] += 1
                        advance()
        except KeyboardInterrupt:
            code, ending = INTERRUPTED, "interrupted"
        except (ClientError, OSError) as error:
            code, ending = FAILED, f"stopped: {_reason(error)}"
        else:
            code, ending = FAILED if counts.total() > counts["ok"] else DONE, ""
    if ending:
        print(f"pawserve: {ending}; continue {arguments.out} with --resume", file=sys.stderr)
    summary = _summary(counts, len(remaining), len(files) - len(remaining), time.monotonic() - begin)
    print(f"{summary} -> {arguments.out}", file=sys.stderr if code == INTERRUPTED else sys.stdout)
    return code


def _summary(counts: Counter[str], remaining: int, before: int, seconds: float) -> str:
    done, ok = counts.total(), counts["ok"]
    failures = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()) if reason != "ok")
    return (
        f"{done:,} of {remaining:,} files in {seconds:.1f} s ({done / seconds:.0f}/s): {ok:,} classified, "
        f"{done - ok:,} failed{f' ({failures})' * bool(failures)}{f'; {before:,} classified before' * bool(before)}"
    )


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f}/s", style="progress.data.speed")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal. Yields a function to call after each file."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (console.is_terminal and total)) as progress:
        task = progress.add_task("classifying", total=total)
        yield lambda: progress.advance(task)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'the file'} cannot be written: {error.strerror}"
    return str(error)


def _line(result: FileResult, width: int, classes: int) -> Text:
    line = Text(f"{result.file!s:<{width}}  ")
    if not isinstance(result.outcome, Prediction):
        return line.append(describe(result.outcome)[1], style="red")
    (label, probability), *others = result.outcome.classes[:classes]
    filled = round(probability * BAR_WIDTH)
    line.append("█" * filled, style="cyan").append("░" * (BAR_WIDTH - filled), style="dim")
    line.append(f" {probability:6.1%} ").append(label, style="bold")
    if others:
        line.append("".join(f"   {label} {probability:.1%}" for label, probability in others), style="dim")
    return line
