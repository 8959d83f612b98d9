"""Picture files in; what a server says about them, as a table, as JSON, or in a file, out."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from serving.cli.classify_files import FileResult, ask, describe, find_files, in_order
from serving.cli.common import to_credentials
from serving.cli.results import ResultsFile, to_dict
from serving.client import Client, ClientError, Prediction

CLASSES_ON_TERMINAL = 3
BAR_WIDTH = 20
MAX_NAME_WIDTH = 60
WRONG_USE = 2
INTERRUPTED = 130


def predict(arguments: argparse.Namespace) -> int:
    """Classify files, and tell each one's classes; 1 if one of them failed."""
    if arguments.resume and not arguments.out:
        print("pawserve: --resume goes on with the file that --out names; name one", file=sys.stderr)
        return WRONG_USE
    files = find_files(arguments.files)
    if not files:
        print("pawserve: the folder holds no pictures", file=sys.stderr)
        return 1
    with Client(arguments.server, timeout_s=arguments.timeout, credentials=to_credentials(arguments)) as client:
        if arguments.out:
            return _write(client, files, arguments)
        results = in_order(files, _ask(client, files, arguments))
        return _print_json(results) if arguments.json else _print(results, files, arguments)


def _ask(client: Client, files: list[Path], arguments: argparse.Namespace) -> Iterator[FileResult]:
    client.list_models()  # so that a server that is not there is said before anything else
    return ask(
        client,
        files,
        label=arguments.label,
        streams=max(1, len(arguments.server.split(","))),
        model=arguments.model,
        views=arguments.views,
        top_k=arguments.top_k,
        adaptive=arguments.adaptive,
    )


def _print_json(results: Iterator[FileResult]) -> int:
    told = list(results)
    model = next((result.model for result in told if result.model), None)
    documents: list[dict[str, Any]] = [to_dict(result) for result in told]
    print(json.dumps({"model": model, "results": documents}, indent=2))
    return int(any(not isinstance(result.outcome, Prediction) for result in told))


def _print(results: Iterator[FileResult], files: list[Path], arguments: argparse.Namespace) -> int:
    width = min(MAX_NAME_WIDTH, max(len(str(file)) for file in files))
    console = Console(highlight=False)
    failed = 0
    for result in results:
        failed += not isinstance(result.outcome, Prediction)
        console.print(_line(result, width, arguments.top_k or CLASSES_ON_TERMINAL), soft_wrap=True)
    if len(files) == 1 and isinstance(result.outcome, Prediction) and not arguments.label:
        print(f"when you know what it is: python -m serving label {result.outcome.token} CLASS")
    return int(failed > 0)


def _write(client: Client, files: list[Path], arguments: argparse.Namespace) -> int:
    """Write results to a file as they come; whatever ends it, what is done stays, and is counted."""
    try:
        file = ResultsFile(arguments.out, resume=arguments.resume)
    except (OSError, ValueError) as error:
        print(f"pawserve: {_reason(error)}", file=sys.stderr)
        return 1
    counts: Counter[str] = Counter()
    begin = time.monotonic()
    with file:
        remaining = [each for each in files if str(each) not in file.done]
        before = len(files) - len(remaining)
        try:
            with _progress(len(remaining)) as advance:
                for result in _ask(client, remaining, arguments) if remaining else ():
                    file.write(result)
                    ok = isinstance(result.outcome, Prediction)
                    counts["ok" if ok else describe(result.outcome)[0]] += 1  # type: ignore[arg-type]
                    advance()
        except KeyboardInterrupt:
            code, how = INTERRUPTED, "interrupted"
        except (ClientError, OSError) as error:
            code, how = 1, f"stopped: {_reason(error)}"
        else:
            code, how = int(counts.total() > counts["ok"]), ""
    seconds = time.monotonic() - begin
    done = counts.total()
    if how:
        print(f"pawserve: {how}; --resume goes on with {arguments.out}", file=sys.stderr)
    failures = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()) if reason != "ok")
    print(
        f"{done:,} of {len(remaining):,} files in {seconds:.1f} s ({done / seconds:.0f}/s): {counts['ok']:,} classified"
        f", {done - counts['ok']:,} failed{f' ({failures})' * bool(failures)}"
        f"{f'; {before:,} were done before' * bool(before)} -> {arguments.out}",
        file=sys.stderr if code == INTERRUPTED else sys.stdout,
    )
    return code


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Shows how far it is on a terminal; yields what to call for each file."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    console = Console(stderr=True)
    begin = time.monotonic()
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("classifying", total=total, rate="")
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if done % 16 == 0 or done == total:
                rate = f"{done / (time.monotonic() - begin):.0f}/s"
                progress.update(task, completed=done, rate=rate)

        yield advance


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
