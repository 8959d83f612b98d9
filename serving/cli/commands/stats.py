"""`stats`: show the statistics of a server."""

import argparse
from pathlib import Path

from rich.console import Console

from serving.cli.connection import add_client_options, open_client
from serving.cli.errors import DONE, CommandError, UsageError
from serving.cli.options import number, png
from serving.cli.plot import plot_confusion_matrix
from serving.cli.statistics_options import add_window_options
from serving.cli.tables import statistics_to_dict, statistics_view
from serving.cli.watch import watch_statistics
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.system.output import print_json


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `stats`."""
    parser.description = (
        "Show the confusion matrix of each model version and the rates derived from it, with 95% confidence intervals."
    )
    add_client_options(parser)
    add_window_options(parser)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--plot", type=png, metavar="FILE.png", help="draw the confusion matrix of one version")
    output.add_argument("--watch", action="store_true", help="show the statistics whenever they change, until Ctrl-C")
    parser.add_argument(
        "--interval",
        type=number("seconds", 0.1, 3600),
        default=1.0,
        metavar="S",
        help="least seconds between two updates of --watch (%(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, with --watch one on each line")


def run(arguments: argparse.Namespace) -> int:
    """Print the statistics, plot those of one version, or show them until Ctrl-C."""
    if arguments.watch and (arguments.since or arguments.until):
        raise UsageError("--watch shows the statistics of all time: leave out --since and --until")
    with open_client(arguments) as client:
        if arguments.watch:
            watch_statistics(client, arguments.model, arguments.interval, as_json=arguments.json)
        models = client.statistics(arguments.model, start=arguments.since, end=arguments.until)
    if arguments.plot is not None:
        _plot(models, arguments.plot)
    if arguments.json:
        print_json({"models": [statistics_to_dict(model) for model in models]}, indent=2)
    else:
        Console().print(statistics_view(models, window=bool(arguments.since or arguments.until)))
    return DONE


def _plot(models: list[pb.ModelStatistics], path: Path) -> None:
    labelled = [model for model in models if model.labels]
    if len(labelled) != 1:
        choices = ", ".join(model.model for model in labelled) or "none"
        raise CommandError(f"--plot draws one version with labels; there are {choices}: choose one with --model")
    try:
        plot_confusion_matrix(labelled[0], path)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error
