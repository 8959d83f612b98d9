"""`python -m training evaluate`: a finished run on a folder of labelled images."""

import tempfile
from pathlib import Path

from training.console import progress
from training.data.images import (
    VALID,
    DataError,
    Skipped,
    class_names,
    hash_images,
    labels_of,
    list_images,
    listed,
    say_skipped,
)
from training.data.shards import is_sharded, load_index
from training.distributed import ProcessGroup
from training.evaluation.evaluation import Evaluation, evaluate
from training.features.provider import ActivationProvider, view_logits
from training.hardware import choose_hardware
from training.networks.model import Classifier
from training.networks.weights import fingerprint
from training.runs.run import Run

MAX_LISTED = 50
"""Classes in a message."""


def evaluate_run(run: Run, data: Path, views: int, cache: Path | None = None) -> tuple[Evaluation, list[Skipped]]:
    """Evaluate with the run's own temperature.

    Args:
        data: `CLASS/*`, `valid/CLASS/*` or the validation part of shards, with exactly the run's classes.

        cache: where activations are kept; None keeps them for this evaluation only.

    Returns:
        The evaluation, and the files that could not be read.

    Raises:
        DataError: if the classes are others, with both lists, or no image can be read.
        RunError: if the run is incomplete.
    """
    sharded = is_sharded(data)
    folder = data / VALID if (data / VALID).is_dir() and not sharded else data
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one with CLASS/* or valid/CLASS/*")
    if (classes := load_index(data).classes if sharded else class_names(folder)) != run.classes:
        raise DataError(
            "the classes differ, so predictions cannot be compared with labels.\n"
            f"  run:  {listed(run.classes, MAX_LISTED)}\n  data: {listed(classes, MAX_LISTED)}\n"
            f"  only in the run: {listed(set(run.classes) - set(classes))}; "
            f"only in the data: {listed(set(classes) - set(run.classes))}\n"
            f"the classes of {folder} must have the run's names"
        )
    unreadable: list[Skipped] = []
    if sharded:
        images = load_index(data).split().valid
    else:
        with progress("reading images") as on_progress:
            images, unreadable = hash_images(list_images(folder, classes), on_progress)
    if not images:
        raise DataError(f"{folder} holds no images that can be read")
    network = run.load_classifier()
    hardware = choose_hardware()
    with tempfile.TemporaryDirectory() as temporary:

        def provider(member: Classifier) -> ActivationProvider:
            sha256 = fingerprint(member.body.network.state_dict())
            return ActivationProvider(
                member.body,
                run.preprocess,
                sha256,
                cache or Path(temporary),
                hardware,
                ProcessGroup(),
                len(images) * views,
            )

        logits_VNK, known, skipped = view_logits(network, images, views=views, provider=provider)
    skipped = unreadable + skipped
    say_skipped(skipped)
    if not known:
        raise DataError(f"{folder} holds no images that can be read; the first is {skipped[0].path}")
    return evaluate(logits_VNK, labels_of(known), run.classes, run.temperature), skipped
