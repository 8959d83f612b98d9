"""`health`: check whether a server is ready."""

import argparse

import grpc

from serving.cli.commands.models import state_of
from serving.cli.connection import add_client_options, open_client
from serving.cli.errors import DONE, FAILED
from serving.client import Client, ClientError
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.system.output import print_json


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `health`."""
    parser.description = "Check whether a server is ready. The exit code is 0 if it is, and 1 if not or unreachable."
    add_client_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Print the status and the states of the models."""
    with open_client(arguments) as client:
        status = client.health()
        models = _list_models(client) if status == "SERVING" else []
    if arguments.json:
        states = [
            {"name": each.name, "state": state_of(each), "reason": each.state_reason, "primary": each.primary}
            for each in models
        ]
        print_json({"status": status, "models": states})
    else:
        print(status, *map(_describe, models), sep="\n  ")
    return DONE if status == "SERVING" else FAILED


def _describe(model: pb.Model) -> str:
    if model.state == pb.MODEL_STATE_READY:
        return f"{model.name} ({model.engine}{'; primary' * model.primary})"
    return f"{model.name} {state_of(model)}" + f": {model.state_reason}" * bool(model.state_reason)


def _list_models(client: Client) -> list[pb.Model]:
    """The models; none without credentials, since the health check of a container has and needs none."""
    try:
        return client.list_models()
    except ClientError as error:
        if error.code == grpc.StatusCode.UNAUTHENTICATED:
            return []
        raise
