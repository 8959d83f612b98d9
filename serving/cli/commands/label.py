"""`label`: record the label of one prediction."""

import argparse

from serving.cli.connection import add_client_options, open_client
from serving.cli.errors import DONE
from serving.client import ClientError
from serving.system.output import print_json


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `label`."""
    parser.description = (
        "Record the label of a prediction. Recording the same label again changes nothing; another label replaces it."
    )
    parser.add_argument("token", metavar="TOKEN", help="the prediction's token")
    parser.add_argument("label", metavar="CLASS", help="the correct class")
    add_client_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Record the label and print what was predicted."""
    with open_client(arguments) as client:
        [result] = client.record_labels([(arguments.token, arguments.label)])
        if isinstance(result, ClientError):
            raise result
    previous = result.previous_label if result.HasField("previous_label") else None
    if arguments.json:
        document = {
            "model": result.model,
            "predicted": result.predicted,
            "label": result.label,
            "previous_label": previous,
        }
        print_json(document)
        return DONE
    verdict = "correct" if result.predicted == result.label else "incorrect"
    replaced = f"; it replaces the label {previous}" if previous not in (None, result.label) else ""
    print(f"recorded: {result.model} predicted {result.predicted}, the label is {result.label} ({verdict}{replaced})")
    return DONE
