"""The folder in which a run is built, beside its final place, or inside it if that cannot be replaced.

`.NAME.partial` holds what an unfinished fit has written; it is kept if there is a checkpoint to resume from.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.system.files import contents, is_replaceable, move_contents, sync_folder
from training.console import say
from training.data.layout import DataError
from training.fitting.checkpoint import CHECKPOINT_FILE, ResumeError
from training.fitting.loop import TrainingError
from training.recipes.recipe import Recipe, differences
from training.runs.run import RECIPE_FILE, RUN_FILE

LOCK_FILE = ".lock"


def partial_folder(run: Path) -> Path:
    """The folder of an unfinished run, which may be given as a link."""
    place = run.resolve()
    return (place.parent if is_replaceable(place) else place) / f".{place.name}.partial"


def can_resume(run: Path) -> bool:
    """Whether there is a checkpoint to resume from."""
    return (partial_folder(run) / CHECKPOINT_FILE).exists()


def is_finished(run: Path, recipe: Recipe) -> bool:
    """Whether there is a finished run, and no unfinished one.

    Raises:
        ValueError: if it is of another recipe, with the difference.
    """
    if can_resume(run) or not (run / RUN_FILE).exists():
        return False
    if changed := differences(recipe.as_fields(), Recipe.load(run / RECIPE_FILE).as_fields()):
        raise ValueError(
            f"{run} is finished, with another recipe:\n  " + "\n  ".join(changed) + "\ngive another --run, or remove it"
        )
    return True


@contextmanager
def building(run: Path, *, resume: bool) -> Iterator[Path]:
    """The folder to build a run in; when the block ends it is synced and takes the run's place.

    It is renamed to the run's name or, where that is a mount point, what it holds is moved there, run.json last. If
    the block fails, the folder is kept if it holds a checkpoint, and removed otherwise.

    Raises:
        ValueError: if `run` holds something else, if there is a checkpoint and `resume` is not set (or the other way
            round), or if another process builds this run.
    """
    folder = partial_folder(run)
    _check_contents(run, folder)
    if resume and not folder.is_dir():
        raise ValueError(f"there is no unfinished run {folder} to resume; leave out --resume to start one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--run {run} cannot be written: {error.strerror}; give another --run") from error
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another process is writing {run}; wait for it, or give another --run") from error
        if not resume:
            if (folder / CHECKPOINT_FILE).exists():
                raise ValueError(
                    f"an unfinished run is kept in {folder}: continue it with --resume, or remove that folder to start "
                    "over"
                )
            _empty(folder)
        try:
            yield folder
            sync_folder(folder)
            _put_in_place(folder, run)
            # only now: until the run is in its place, there must be a checkpoint to resume from
            for leftover in (run / CHECKPOINT_FILE, run / LOCK_FILE):
                leftover.unlink(missing_ok=True)
        except BaseException as error:
            there = (folder / CHECKPOINT_FILE).exists()
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(folder)  # the error of a write to a full disk has no file name
            if note := _what_is_kept(error, folder, there):
                error.add_note(note)
            if not there:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _what_is_kept(error: BaseException, folder: Path, checkpoint: bool) -> str:
    if isinstance(error, TrainingError):
        if not checkpoint:
            return "there is no checkpoint: none had been written yet"
        return (
            f"the last good checkpoint is {folder / CHECKPOINT_FILE}; --resume would give the same loss again, so "
            f"remove {folder} to start over with a lower learning rate"
        )
    if checkpoint and not isinstance(error, ResumeError):  # its message says what to do
        restore = "restore the images, then " if isinstance(error, DataError) else ""  # others are refused
        return f"what was done is kept in {folder}: {restore}run the same command with --resume to continue"
    if isinstance(error, KeyboardInterrupt):
        return "no checkpoint had been written yet; run the same command to start again; computed activations are kept"
    return ""


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:
            path.unlink()


def _check_contents(run: Path, folder: Path) -> None:
    if run.is_dir():
        interrupted = (folder / CHECKPOINT_FILE).exists()  # perhaps while the run's files were moved into place
        if not (run / RUN_FILE).exists() and not interrupted and set(contents(run)) - {run / folder.name}:
            raise ValueError(f"--run {run} holds other files than a run's; give a new or an empty folder")
    elif run.exists():
        raise ValueError(f"--run {run} is a file; give a new folder")


def _put_in_place(folder: Path, run: Path) -> None:
    place = run.resolve()
    inside = folder.parent == place
    previous = (place if inside else place.parent) / f"{place.name}.previous"
    if (place / RUN_FILE).exists():
        shutil.rmtree(previous, ignore_errors=True)
        if inside:
            previous.mkdir()
            move_contents(place, previous, leave=(folder.name, previous.name))
        else:
            os.rename(place, previous)
        say(f"the previous run is kept as {previous}")
    if not inside:
        os.rename(folder, place)
        return
    move_contents(folder, place, leave=(CHECKPOINT_FILE, LOCK_FILE))
    shutil.rmtree(folder)
