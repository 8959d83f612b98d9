"""The command that repeats a run."""

import shlex
from pathlib import Path

from serving.image.decode import OWN_IMAGE_LIMITS
from training.fitting.session import FitSession
from training.runs.run import RECIPE_FILE


def repeat_command(session: FitSession, run: Path, *, check: bool) -> str:
    """A line for a shell that trains as this run was trained, into a folder beside it.

    Args:
        run: whose recipe.yaml has all settings.
        check: whether the data were checked.
    """
    place, processes, limits = run.resolve(), session.processes.count, session.limits
    words = ["python", "-m", "training", "fit"]
    if processes > 1:
        words = ["torchrun", "--nproc-per-node", str(processes), "-m", "training", "--", "fit"]
    words += ["--data", str(session.data), "--run", f"{place}-again", "--recipe", str(place / RECIPE_FILE)]
    if session.exclusions:
        words += ["--exclude", *(str(Path(each).resolve()) for each in session.exclusions["lists"])]
    if served := session.labels:
        words += ["--labels", str(Path(served["file"]).resolve()), "--images", str(Path(served["images"]).resolve())]
    if limits.max_bytes != OWN_IMAGE_LIMITS.max_bytes:
        words += ["--max-image-mib", str(limits.max_bytes // 2**20)]
    if limits.max_pixels != OWN_IMAGE_LIMITS.max_pixels:
        words += ["--max-pixels", str(limits.max_pixels)]
    if not check:
        words.append("--no-check")
    return shlex.join(words)
