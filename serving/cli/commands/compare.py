"""`compare`: which of two versions of a model is more accurate."""

import argparse

from rich.console import Console

from serving.bundle.model_version import check_name, resource_name
from serving.cli.comparison_tables import comparison_to_dict, comparison_view
from serving.cli.connection import add_client_options, open_client
from serving.cli.errors import DONE, UsageError
from serving.cli.options import time, version_number
from serving.system.output import print_json


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `compare`."""
    parser.description = (
        "Compare two versions of a model by their labels: on the images that both classified, one of them as the "
        "other's shadow (serve --shadow), or else each on its own images. Differences are SECOND minus FIRST."
    )
    parser.add_argument("name", metavar="NAME", help="the model")
    parser.add_argument("first", type=version_number, metavar="FIRST", help="a version, such as 3")
    parser.add_argument("second", type=version_number, metavar="SECOND", help="another version, such as 4")
    add_client_options(parser)
    parser.add_argument("--since", type=time, metavar="TIME", help="only predictions made at this time or later: 7d")
    parser.add_argument("--until", type=time, metavar="TIME", help="only predictions made before this time (now)")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with every class")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison."""
    try:
        check_name(arguments.name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if arguments.first == arguments.second:
        raise UsageError(f"FIRST and SECOND are both {arguments.first}; give two versions")
    first, second = (resource_name(arguments.name, version) for version in (arguments.first, arguments.second))
    with open_client(arguments) as client:
        comparison = client.compare(first, second, start=arguments.since, end=arguments.until)
    if arguments.json:
        print_json(comparison_to_dict(comparison), indent=2)
    else:
        Console().print(comparison_view(comparison))
    return DONE
