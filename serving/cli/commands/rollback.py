"""`rollback`: make the version that was primary before the latest promotion primary again."""

import argparse

from serving.bundle.folder import list_versions
from serving.bundle.manifest import BundleError
from serving.bundle.primary_choice import FILE, changing_choice, write_choice
from serving.cli.commands.promote import add_model_options, model_folder, models_option
from serving.cli.errors import DONE, CommandError
from serving.system.times import format_time, now_ms


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `rollback`."""
    parser.description = (
        "Make the version that was primary before the latest `promote` primary again. The choice is written to "
        f"NAME/{FILE} in the model folder. A second `rollback` goes back one promotion more. Servers follow it when "
        "they look for new versions (serve --poll-interval, or SIGHUP)."
    )
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the earlier choice."""
    name, folder = arguments.name, model_folder(arguments)
    try:
        with changing_choice(folder) as (choice, _):
            earlier = choice.rolled_back(format_time(now_ms()))
            if earlier.version not in list_versions(folder):
                raise CommandError(
                    f"version {earlier.version}, which was primary before, is no longer in {folder}; choose another "
                    f"one with: pawserve promote {name} VERSION{models_option(arguments)}"
                )
            write_choice(folder, earlier)
    except BundleError as error:
        raise CommandError(str(error)) from error
    except ValueError as error:
        raise CommandError(
            f"{name} cannot be rolled back: {error}; choose with: pawserve promote {name} VERSION"
            f"{models_option(arguments)}"
        ) from error
    except OSError as error:
        raise CommandError(f"{folder / FILE} cannot be written: {error.strerror or error}") from error
    before = f"version {choice.version}" if choice.version else "the newest version"
    print(f"{name}: version {earlier.version} is now primary, instead of {before}")
    return DONE
