"""Parsed arguments of `serve`, `label`, `stats` and `health` in; what they print, and an exit code, out."""

import argparse
import json
import os
import sys

import grpc
from rich.console import Console

from serving.cli.common import clearing_up, to_credentials
from serving.cli.statistics import print_statistics, statistics_to_dict, watch_statistics
from serving.client import Client, ClientError
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.system.logs import configure as configure_logs

WRONG_USE = 2


def serve(arguments: argparse.Namespace) -> int:
    """Serve until a signal."""
    # here, so that the other commands need not wait for the inference libraries
    from serving.cli.serve_options import to_settings
    from serving.process import run
    from serving.server import StartupError

    configure_logs(arguments.log_format, arguments.log_level)
    os.umask(0o077)  # what the server writes is for its own user: keys, labels
    try:
        settings = to_settings(arguments)
    except ValueError as error:
        print(f"pawserve: {error}", file=sys.stderr)
        return WRONG_USE
    try:
        run(settings)
    except StartupError as error:
        print(f"pawserve: {error}", file=sys.stderr)
        return 1
    return 0


def record_label(arguments: argparse.Namespace) -> int:
    """Record one label."""
    with Client(arguments.server, timeout_s=arguments.timeout, credentials=to_credentials(arguments)) as client:
        [result] = client.record_labels([(arguments.token, arguments.label)])
    if isinstance(result, ClientError):
        raise result
    previous = result.previous_label if result.HasField("previous_label") else None
    if arguments.json:
        fields = {
            "model": result.model,
            "predicted": result.predicted,
            "label": result.label,
            "previous_label": previous,
        }
        print(json.dumps(fields, ensure_ascii=False))
        return 0
    verdict = "right" if result.predicted == result.label else "wrong"
    corrected = f"; before, it was recorded as {previous}" if previous not in (None, result.label) else ""
    print(f"recorded: {result.model} predicted {result.predicted}, and it is {result.label} ({verdict}{corrected})")
    return 0


def check_health(arguments: argparse.Namespace) -> int:
    """Say whether the server is ready, and what it serves."""
    with Client(arguments.server, timeout_s=arguments.timeout, credentials=to_credentials(arguments)) as client:
        status = client.health()
        models = _list_models(client) if status == "SERVING" else []
    if arguments.json:
        print(json.dumps({"status": status, "models": [model.name for model in models]}, ensure_ascii=False))
    else:
        print(status, *(f"{model.name} ({model.engine})" for model in models), sep="\n  ")
    return 0 if status == "SERVING" else 1


def _list_models(client: Client) -> list[pb.Model]:
    """What is served, if the caller may know: a container's health check has no credentials, and needs none."""
    try:
        return client.list_models()
    except ClientError as error:
        if error.code == grpc.StatusCode.UNAUTHENTICATED:
            return []
        raise


def show_statistics(arguments: argparse.Namespace) -> int:
    """Print the statistics, plot those of one version, or show them until Ctrl-C."""
    if arguments.watch and (arguments.since or arguments.until):
        arguments.refuse("--watch shows statistics of all time: leave out --since and --until")
    with Client(arguments.server, timeout_s=arguments.timeout, credentials=to_credentials(arguments)) as client:
        if arguments.watch:
            watch_statistics(client, arguments.model, arguments.interval, Console(), as_json=arguments.json)
        models = client.statistics(arguments.model, start=arguments.since, end=arguments.until)
    if arguments.plot is not None:
        labelled = [model for model in models if model.labels]
        if len(labelled) != 1:
            choices = ", ".join(model.model for model in labelled) or "none"
            print(f"pawserve: --plot draws one version with labels; there are {choices}: use --model", file=sys.stderr)
            return 1
        # here, so that the other commands need not wait for the drawing libraries
        from serving.cli.plot import plot_confusion_matrix

        try:
            plot_confusion_matrix(labelled[0], arguments.plot)
        except OSError as error:
            print(f"pawserve: {arguments.plot} cannot be written: {error.strerror}", file=sys.stderr)
            return 1
    if arguments.json:
        print(json.dumps({"models": [statistics_to_dict(model) for model in models]}, ensure_ascii=False, indent=2))
    else:
        print_statistics(Console(), models)
    return 0


def export_labels(arguments: argparse.Namespace) -> int:
    """Write the labels of a database to a file."""
    # here, so that the other commands need not wait for the database libraries
    from serving.statistics.export import export

    with clearing_up():
        return export(arguments)
