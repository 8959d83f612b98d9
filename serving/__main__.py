"""The commands: python -m serving serve | ray | predict | label | stats | export-labels | health."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.cli.commands import check_health, record_label, serve, show_statistics
from serving.cli.common import add_channel_options, check_environment, model_resource, positive, seconds
from serving.cli.operators import add_operator_commands
from serving.cli.predict import predict
from serving.cli.serve_options import add_serve_options
from serving.cli.statistics_options import add_export_labels, add_view_options
from serving.client.async_client import DEFAULT_TIMEOUT_S
from serving.client.messages import ClientError
from serving.ray.options import add_ray
from serving.system.network import DEFAULT_ADDRESS

WRONG_USE = 2
INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        check_environment()
    except ValueError as error:
        print(f"pawserve: {error}", file=sys.stderr)
        return WRONG_USE
    try:
        return int(options.run(options))
    except ClientError as error:
        print(f"pawserve: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Serve image classifiers over gRPC, ask them, and tell them what turned out to be true.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="serve the models in a folder"))
    add_ray(commands.add_parser("ray", help="serve them as replicas of a Ray cluster"))
    _add_predict(commands.add_parser("predict", help="classify pictures"))
    _add_label(commands.add_parser("label", help="record what a prediction turned out to be"))
    _add_stats(commands.add_parser("stats", help="show the confusion matrix and the rates that follow from it"))
    add_export_labels(commands.add_parser("export-labels", help="write the labels to a CSV or Parquet file"))
    _add_health(commands.add_parser("health", help="ask whether a server is ready"))
    add_operator_commands(commands)
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serve models over gRPC until SIGTERM or Ctrl-C. One line on standard output says when the server is ready, "
        "where, and with what; the log goes to standard error."
    )
    add_serve_options(parser)
    parser.set_defaults(run=serve)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = "Classify pictures, and show each one's classes with their probabilities."
    parser.epilog = "If a picture fails, the others are still shown, and the exit code is 1."
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="a picture, or a folder of pictures")
    _add_client_options(parser)
    add(
        "--model",
        type=model_resource,
        default="",
        metavar="NAME[/VERSION]",
        help="which model to ask (the only one that is served)",
    )
    add("--views", type=positive, metavar="N", help="views of each picture to average over (1)")
    add("--adaptive", action="store_true", help="more views (5, or --views) only of pictures whose first is uncertain")
    add("--top-k", type=positive, metavar="K", help="classes to show of each picture (all, and 3 on a terminal)")
    add("--label", default="", metavar="CLASS", help="what the pictures show, if you know: it is recorded")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="write each result to FILE.csv or FILE.jsonl as soon as it is known, and show the progress",
    )
    add("--resume", action="store_true", help="go on with that file: leave out what is classified in it")
    parser.set_defaults(run=predict)


def _add_label(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Record what a prediction turned out to be. The same label again changes nothing; another one corrects it."
    )
    parser.add_argument("token", metavar="TOKEN", help="the prediction's token")
    parser.add_argument("label", metavar="CLASS", help="the true class")
    _add_client_options(parser)
    parser.set_defaults(run=record_label)


def _add_stats(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show, for each model version, what it predicted against what turned out to be true, with 95% confidence "
        "intervals."
    )
    _add_client_options(parser)
    parser.add_argument(
        "--model", type=model_resource, default="", metavar="NAME[/VERSION]", help="only this model (all)"
    )
    add_view_options(parser)
    parser.set_defaults(run=show_statistics, refuse=parser.error)


def _add_health(parser: argparse.ArgumentParser) -> None:
    parser.description = "Ask whether a server is ready: exit code 0 if it is, 1 if not, or if it does not answer."
    _add_client_options(parser)
    parser.set_defaults(run=check_health)


def _add_client_options(parser: argparse.ArgumentParser) -> None:
    address = os.environ.get("PAWSERVE_SERVER", DEFAULT_ADDRESS)
    parser.add_argument(
        "--server",
        default=address,
        metavar="HOST:PORT",
        help=f"or IP:PORT,IP:PORT or dns:///NAME:PORT for several ($PAWSERVE_SERVER, or {DEFAULT_ADDRESS})",
    )
    parser.add_argument("--timeout", type=seconds, default=DEFAULT_TIMEOUT_S, metavar="S", help="for each request (30)")
    add_channel_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
