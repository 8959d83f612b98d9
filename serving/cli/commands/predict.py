"""`predict`: classify image files."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from serving.cli.connection import add_client_options
from serving.cli.errors import DONE, FAILED, INTERRUPTED, CommandError, UsageError
from serving.cli.options import model_resource, path, png, positive
from serving.cli.prediction.files import FileResult, describe, find_files, find_references, in_order
from serving.cli.prediction.results import ResultsFile, to_dict
from serving.cli.prediction.source import Source, is_local, open_source
from serving.cli.signals import deferred_interrupt
from serving.client import ClientError, Prediction
from serving.image.folders import Skipped, describe_skipped
from serving.system.output import print_json

if TYPE_CHECKING:
    from serving.cli.prediction.comparison import FolderComparison

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
    add(
        "--model",
        type=_model,
        default="",
        metavar="NAME[/VERSION]|DIR",
        help="the model (the only one served); or the folder of a bundle or a run, which is then used in this process, "
        "without a server",
    )
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
    add(
        "--plot",
        type=png,
        metavar="FILE.png",
        help="draw the confusion matrix of images in folders that are named after classes",
    )


def _model(text: str) -> str:
    if is_local(text):
        return text
    try:
        return model_resource(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or a folder with a bundle or a finished run") from error


def run(arguments: argparse.Namespace) -> int:
    """Classify the files; FAILED if one of them failed."""
    if arguments.resume and not arguments.out:
        raise UsageError("--resume continues the file of --out; give --out too")
    files, skipped = find_files(arguments.files)
    lines = describe_skipped(skipped)
    if not files:
        given = ", ".join(map(str, arguments.files))
        raise CommandError("\n".join([f"{given} holds no images", *lines]))
    for line in lines:
        print(line, file=sys.stderr)
    references = find_references(arguments.files, files)
    if nameless := len(files) - len(references):
        print(
            f"{nameless:,} files have no reference, since their path has more than 256 bytes, control characters or "
            "bytes that are not UTF-8",
            file=sys.stderr,
        )
    with open_source(arguments, references) as source:
        comparison = _make_comparison(source.classes, arguments.files, files)
        if arguments.plot and comparison is None:
            raise UsageError("--plot compares predictions with folders named after classes, and no image is in one")
        if arguments.out:
            code = _write(source, files, arguments, comparison)
        else:
            results = _compared(in_order(files, _checked(source.classify(files))), comparison)
            if arguments.json:
                return _finish(_print_json(results, skipped, comparison), comparison, arguments, quiet=True)
            code = _print(results, files, arguments, comparison)
        return _finish(code, comparison, arguments)


def _make_comparison(classes: Sequence[str], given: Sequence[Path], files: Sequence[Path]) -> "FolderComparison | None":
    """What compares predictions with names of folders; None if no image is in a folder named after a class."""
    if not any(path.is_dir() for path in given):
        return None
    from serving.cli.prediction.comparison import FolderComparison  # loads NumPy and Pillow

    comparison = FolderComparison(classes, given)
    return comparison if any(map(comparison.label_of, files)) else None


def _compared(results: Iterable[FileResult], comparison: "FolderComparison | None") -> Iterator[FileResult]:
    for result in results:
        if comparison is not None:
            comparison.add(result)
        yield result


def _checked(results: Iterable[FileResult]) -> Iterator[FileResult]:
    """The results; CommandError at the first whose label is no class, which is so for all of them."""
    for result in results:
        if not isinstance(result.outcome, Prediction) and describe(result.outcome)[0] == "LABEL_UNKNOWN":
            raise CommandError(describe(result.outcome)[1])
        yield result


def _finish(
    code: int, comparison: "FolderComparison | None", arguments: argparse.Namespace, *, quiet: bool = False
) -> int:
    """Print and plot the comparison."""
    if comparison is None or not comparison.compared:
        return code
    if not quiet:
        Console().print(comparison.view())
        if comparison.unlabelled:
            print(f"not compared, since no folder around them is named after a class: {comparison.unlabelled:,}")
    if arguments.plot:
        try:
            comparison.plot(arguments.plot)
        except OSError as error:
            raise CommandError(_reason(error)) from error
    return code


def _print_json(results: Iterator[FileResult], skipped: list[Skipped], comparison: "FolderComparison | None") -> int:
    all_results = list(results)
    model = next((result.model for result in all_results if result.model), None)
    facts = [to_dict(result) for result in all_results]
    document: dict[str, Any] = {"model": model, "results": facts, "skipped": [each.to_json() for each in skipped]}
    if comparison is not None:
        for fact, result in zip(facts, all_results, strict=True):
            fact["folder_label"] = comparison.label_of(result.file)
        document["comparison"] = comparison.to_dict()
    print_json(document, indent=2)
    return FAILED if any(not isinstance(result.outcome, Prediction) for result in all_results) else DONE


def _print(
    results: Iterator[FileResult],
    files: list[Path],
    arguments: argparse.Namespace,
    comparison: "FolderComparison | None",
) -> int:
    width = min(MAX_NAME_WIDTH, max(len(str(file)) for file in files))
    console = Console(highlight=False)
    failed = correct = 0
    for result in results:
        failed += not isinstance(result.outcome, Prediction)
        correct += isinstance(result.outcome, Prediction) and result.outcome.classes[0][0] == arguments.label
        line = _line(result, width, arguments.top_k or CLASSES_ON_TERMINAL)
        if comparison is not None and comparison.is_incorrect(result):
            line.append(f"   incorrect: it is in {comparison.label_of(result.file)}", style="red")
        console.print(line, soft_wrap=True)
    if arguments.label:
        count = len(files) - failed
        print(f"recorded {arguments.label} as the label of {count:,} image{'s' * (count != 1)}: {correct:,} correct")
    elif len(files) == 1 and isinstance(result.outcome, Prediction) and result.outcome.token:
        print(f"to record the correct class: pawserve label {result.outcome.token} CLASS")
    return FAILED if failed else DONE


def _write(
    source: Source, files: list[Path], arguments: argparse.Namespace, comparison: "FolderComparison | None"
) -> int:
    """Write results to a file as they arrive. Whatever ends this, the results so far are kept and counted."""
    try:
        file = ResultsFile(arguments.out, resume=arguments.resume)
    except (OSError, ValueError) as error:
        raise CommandError(_reason(error)) from error
    counts: Counter[str] = Counter()
    begin = time.monotonic()
    with file:
        remaining = [each for each in files if str(each) not in file.done]
        if comparison is not None:
            for each in files:
                if predicted := file.done.get(str(each)):
                    comparison.add_prediction(each, predicted)
        try:
            with _progress(len(remaining)) as advance:
                for result in _compared(_checked(source.classify(remaining)) if remaining else (), comparison):
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
