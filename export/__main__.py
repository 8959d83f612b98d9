"""`python -m export`: from a run to a bundle, TensorRT engines or a Triton model repository."""

import sys
from collections.abc import Sequence

from export.options import BundleOptions, EngineOptions, InspectOptions, TritonOptions
from training.command import Command, run_command

COMMANDS = {
    "bundle": Command(BundleOptions, "export.bundle:run", renamed={"--calibration-photos": "--calibration-images"}),
    "engine": Command(EngineOptions, "export.engine:run", renamed={"--photos": "--images"}),
    "triton": Command(TritonOptions, "export.triton:run"),
    "inspect": Command(InspectOptions, "export.inspection:run"),
}


def main(arguments: Sequence[str], called_as: str | None = None) -> int:
    """Run one command, which the user called `called_as`; returns its exit code."""
    about = "From a run to a bundle that can be deployed."
    return run_command("python -m export", about, COMMANDS, arguments, called_as)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
