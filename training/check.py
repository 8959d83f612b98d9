"""`python -m training check`: the checks of a data set, without training."""

import tempfile
from contextlib import nullcontext
from pathlib import Path

from serving.image.decode import Limits
from serving.system.files import write_atomically
from training.checks.data_checks import DataChecks, check_data
from training.checks.files import write_lists
from training.data.images import TRAINING_LIMITS
from training.data.layout import listed
from training.distributed import ProcessGroup
from training.fitting.session import MAX_CLASSES, set_up
from training.hardware import choose_hardware
from training.recipes.recipe import Recipe
from training.reports.data_page import data_page

DATA_PAGE = "data.html"


def check(data: Path, out: Path, recipe: Recipe, cache: Path, *, limits: Limits = TRAINING_LIMITS) -> DataChecks:
    """Check a data set, and write suspects.csv, duplicates.csv and data.html into a folder.

    Args:
        data: folder of images, or of shards.
        recipe: whose first stage is trained on activations; its network and how images are held out are used.
        cache: where activations and facts about images are kept.

    Raises:
        DataError, WeightsError, ValueError: with what to change.
        OSError: if something cannot be written.
    """
    data = data.resolve()
    with tempfile.TemporaryDirectory() as folder:
        session = set_up(
            data,
            recipe,
            cache,
            limits=limits,
            targets=(cache.resolve(), out.resolve()),
            folder=Path(folder),
            hardware=choose_hardware(),
            processes=ProcessGroup(),
            checkpoint_every_s=0,
            stage=lambda name: nullcontext(),
        )
        train, valid = session.activations
        checks = check_data(session.split.classes, train, valid, cache, session.skipped, seed=recipe.seed)
    write_lists(checks, data, out)
    title = f"Data check: {listed(session.split.classes, MAX_CLASSES)}"
    write_atomically(out / DATA_PAGE, data_page(checks, data, title))
    return checks
