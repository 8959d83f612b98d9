"""`tune`: measure which layout of engines is the fastest on this host."""

import argparse
import os
from pathlib import Path

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import BundleError
from serving.cli.errors import DONE, CommandError
from serving.cli.options import DAY_S, number, path, seconds
from serving.cli.serve_options import add_engine_options, add_model_options
from serving.image.decode import Limits
from serving.models.loader import ServingOptions
from serving.models.tuning import Result, TuningError, tune_model
from serving.system.logs import configure


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `tune`."""
    parser.description = (
        "Measure which layout of engines (instances, threads, batch size) classifies most images per second on this "
        "host, and write it to the state folder, where `serve --state` finds it. Stop other programs first, servers "
        "too: they distort the measurement. Ctrl-C keeps the earlier layout."
    )
    add_model_options(parser)
    parser.add_argument(
        "--state",
        type=path,
        default=Path("state"),
        metavar="DIR",
        help="state folder of the server; created if it does not exist (state)",
    )
    add_engine_options(parser)
    parser.add_argument(
        "--latency-bound-ms",
        type=number("milliseconds", 0, DAY_S * 1000, above=0),
        default=50.0,
        metavar="MS",
        help="most time of a full batch in an engine, for which the next request may have to wait (%(default)g)",
    )
    parser.add_argument(
        "--seconds", type=seconds, default=2.0, metavar="S", help="duration of each measurement (%(default)g)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write a layout for each model."""
    configure("text", "error")
    os.umask(0o077)
    options = ServingOptions(
        engine=arguments.engine, precision=arguments.precision, max_rows=1, limits=Limits()
    )  # `tune_model` replaces max_rows by the number of its clients
    try:
        for bundle in find_bundles(arguments.models, arguments.model):
            print(f"{bundle.manifest.resource}:", flush=True)
            tuned, path = tune_model(
                bundle,
                options,
                arguments.state / "layouts",
                latency_bound_ms=arguments.latency_bound_ms,
                seconds=arguments.seconds,
                report=_print_result,
            )
            print(
                f"  chosen: {tuned.layout}, batches of at most {tuned.layout.max_batch_size}\n"
                f"  written to {path}; `serve --state {arguments.state}` uses it from its next start on",
                flush=True,
            )
    except (BundleError, TuningError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"the layout cannot be written to {arguments.state}: {error.strerror}") from error
    return DONE


def _print_result(result: Result) -> None:
    layout, outcome = result.layout, result.outcome
    if isinstance(outcome, str):
        figures = f"FAILED: {outcome}"
    elif outcome.rows_per_second is None:
        figures = f"not measured: a full batch takes {1000 * outcome.batch_s:.1f} ms, more than --latency-bound-ms"
    else:
        figures = (
            f"{outcome.rows_per_second:,.1f} images/s; one image takes {1000 * outcome.latency_s:.1f} ms in an engine, "
            f"a full batch {1000 * outcome.batch_s:.1f} ms"
        )
    print(f"  {layout}, batches of at most {layout.max_batch_size}: {figures}", flush=True)
