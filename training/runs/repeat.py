"""The command that repeats a run."""

import shlex
from collections.abc import Collection
from pathlib import Path

from serving.image.decode import Limits
from training.data.images import TRAINING_LIMITS
from training.runs.run import RECIPE_FILE


def repeat_command(
    run: Path,
    data: Path,
    limits: Limits,
    *,
    lists: Collection[str] = (),
    labels: tuple[str, str] | None = None,
    check: bool = True,
    processes: int = 1,
) -> str:
    """A line for a shell that trains as this run was trained, into a folder beside it.

    Args:
        run: whose recipe.yaml has all settings.
        limits: of the images.
        lists: files of images to leave out or to relabel.
        labels: file and image folder of labels from serving.
        check: whether the data were checked.
        processes: how many trained together.
    """
    place = run.resolve()
    words = ["python", "-m", "training", "fit"]
    if processes > 1:
        words = ["torchrun", "--nproc-per-node", str(processes), "-m", "training", "--", "fit"]
    words += ["--data", str(data.resolve()), "--run", f"{place}-again", "--recipe", str(place / RECIPE_FILE)]
    if lists:
        words += ["--exclude", *(str(Path(each).resolve()) for each in lists)]
    if labels:
        words += ["--labels", str(Path(labels[0]).resolve()), "--images", str(Path(labels[1]).resolve())]
    if limits.max_bytes != TRAINING_LIMITS.max_bytes:
        words += ["--max-image-mib", str(limits.max_bytes // 2**20)]
    if limits.max_pixels != TRAINING_LIMITS.max_pixels:
        words += ["--max-pixels", str(limits.max_pixels)]
    if not check:
        words.append("--no-check")
    return shlex.join(words)
