"""`python -m training check`: the checks of a data set, without training."""

from pathlib import Path

from serving.image.decode import Limits
from serving.system.files import write_atomically
from training.checks.data_checks import DataChecks
from training.data.layout import listed
from training.fit import check_session
from training.fitting.session import MAX_CLASSES, temporary_session
from training.recipes.recipe import Recipe
from training.reports.data_page import data_page

DATA_PAGE = "data.html"


def check(data: Path, out: Path, recipe: Recipe, cache: Path, *, limits: Limits) -> DataChecks:
    """Check a data set, and write suspects.csv, duplicates.csv and data.html into a folder.

    Args:
        data: folder of images, or of shards.
        recipe: whose first stage is trained on activations; its network and how images are held out are used.
        cache: where activations and facts about images are kept.

    Raises:
        DataError, WeightsError, ValueError: with what to change.
        OSError: if something cannot be written.
    """
    with temporary_session(data, recipe, cache, limits=limits, targets=(out,)) as session:
        checks = check_session(session, out)
    title = f"Data check: {listed(checks.classes, MAX_CLASSES)}"
    write_atomically(out / DATA_PAGE, data_page(checks, title))
    return checks
