"""`promote`: choose the primary version of a model."""

import argparse
import shlex
import sys
from pathlib import Path

from serving.bundle.folder import list_names, list_versions, open_version
from serving.bundle.manifest import BundleError
from serving.bundle.model_version import ModelVersion, check_name, parse_resource
from serving.bundle.primary_choice import FILE, PrimaryChoice, changing_choice, read_choice, write_choice
from serving.cli.comparison_tables import evidence_text, verdict_text
from serving.cli.connection import add_client_options, open_client
from serving.cli.errors import DONE, CommandError, UsageError
from serving.cli.options import path, version_number
from serving.client import Client
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.system.times import format_time, now_ms

NEWEST = "newest"
DEFAULT_MODELS = Path("models")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `promote`."""
    parser.description = (
        "Choose the primary version of a model: the one that answers requests which name no version. The choice is "
        f"written to NAME/{FILE} in the model folder. Servers follow it when they look for new versions (serve "
        "--poll-interval, or SIGHUP). The figures of both versions are requested from the server and kept with the "
        "choice. `rollback` undoes it."
    )
    add_model_options(parser)
    parser.add_argument("version", type=_version, metavar="VERSION", help=f"a version, or {NEWEST!r} for the newest")
    parser.add_argument(
        "--if-better",
        action="store_true",
        help="only if the labels decide that it is more accurate than the present primary version (see `compare`)",
    )
    add_client_options(parser)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """NAME and `--models`."""
    parser.add_argument("name", metavar="NAME", help="the model")
    parser.add_argument(
        "--models", type=path, default=DEFAULT_MODELS, metavar="DIR", help="the model folder (%(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the choice, unless it is not better."""
    name, version, folder = arguments.name, arguments.version, model_folder(arguments)
    if version is None and arguments.if_better:
        raise UsageError(f"--if-better needs a version, not {NEWEST!r}")
    if version is not None:
        _check_bundle(arguments.models, ModelVersion(name, version))
    primary, figures = _compare(arguments, _chosen(folder))  # before the lock: a server may be slow
    try:
        with changing_choice(folder, replace_damaged=True) as (choice, damage):
            before = _existing(folder, choice) or primary or _newest(folder, version)
            before = None if before == version else before  # it is primary already, as the newest
            if version == choice.version:
                print(f"{name}: version {version} was promoted already" if version else f"{name}: nothing is promoted")
                return DONE
            write_choice(folder, choice.promoted(version, before, format_time(now_ms()), figures))
    except OSError as error:
        raise CommandError(f"{folder / FILE} cannot be written: {error.strerror or error}") from error
    if damage:
        print(f"the damaged {folder / FILE} was replaced, and its history is lost", file=sys.stderr)
    print(f"{name}: {f'version {version}' if version else 'the newest version'} is now primary", end="")
    print(f", instead of version {before}" if before else "")
    print(f"  {figures}")
    if before:
        print(f"  undo it with: pawserve rollback {name}{models_option(arguments)}")
    return DONE


def model_folder(arguments: argparse.Namespace) -> Path:
    """The folder of the model.

    Raises:
        UsageError: if the name is not one.
        CommandError: if there is no such folder.
    """
    try:
        check_name(arguments.name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    folder: Path = arguments.models / arguments.name
    if not folder.is_dir():
        names = list_names(arguments.models) if arguments.models.is_dir() else []
        held = f"it has {', '.join(names)}" if names else "give --models the model folder"
        raise CommandError(f"{arguments.models} holds no model {arguments.name}; {held}")
    return folder


def models_option(arguments: argparse.Namespace) -> str:
    """The option that names the same model folder in another command; empty for the default folder."""
    return "" if arguments.models == DEFAULT_MODELS else f" --models {shlex.quote(str(arguments.models))}"


def _version(text: str) -> int | None:
    return None if text == NEWEST else version_number(text)


def _check_bundle(models: Path, version: ModelVersion) -> None:
    numbers = list_versions(models / version.name)
    if version.version not in numbers:
        held = f"it has {', '.join(map(str, numbers))}" if numbers else "it has none"
        raise CommandError(f"{models / version.name} holds no version {version.version}; {held}")
    try:
        open_version(models, version)
    except BundleError as error:
        raise CommandError(f"{version} cannot be promoted: {error}") from error


def _chosen(folder: Path) -> int | None:
    """The version that was promoted before, if it is there: servers may not have followed the choice yet."""
    try:
        return _existing(folder, read_choice(folder))
    except BundleError:  # damaged: it is replaced
        return None


def _existing(folder: Path, choice: PrimaryChoice) -> int | None:
    return choice.version if choice.version in list_versions(folder) else None


def _newest(folder: Path, version: int | None) -> int | None:
    """The primary version without a choice, as far as the folder shows: not the one that is promoted now."""
    others = [number for number in list_versions(folder) if number != version]
    return others[-1] if others else None


def _compare(arguments: argparse.Namespace, chosen: int | None) -> tuple[int | None, str]:
    """Request the primary version from the server, unless one is chosen, and its comparison with the new one.

    Returns:
        The primary version, None if it is unknown, and the figures in one line.

    Raises:
        CommandError: with `--if-better`, unless the new version is better.
    """
    name, version = arguments.name, arguments.version
    try:
        with open_client(arguments) as client:
            primary = chosen or _primary(client, name)
            if primary is None or version is None or version == primary:
                if arguments.if_better:
                    raise CommandError(f"{arguments.server} has no primary version of {name} other than {version}")
                return primary, "without a comparison"
            first, second = (ModelVersion(name, number).resource for number in (primary, version))
            comparison = client.compare(first, second)
    except CommandError as error:
        if arguments.if_better:
            raise
        return chosen, f"figures unknown: {error}"
    figures = f"{evidence_text(comparison)}; {verdict_text(comparison)}"
    if arguments.if_better and comparison.sequential_test.verdict != pb.COMPARISON_VERDICT_SECOND_IS_BETTER:
        raise CommandError(f"{name}/{version} is not promoted: {figures}")
    return primary, figures


def _primary(client: Client, name: str) -> int | None:
    """The primary version of a model; None if the server has no such model."""
    for model in client.list_models():
        if model.primary and (parsed := parse_resource(model.name))[0] == name:
            return parsed[1]
    return None
