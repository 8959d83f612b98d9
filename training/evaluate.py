"""`python -m training evaluate`: a finished run on a folder of labelled images."""

import tempfile
from dataclasses import replace
from pathlib import Path

from serving.image.decode import OWN_IMAGE_LIMITS, Limits
from serving.image.folders import Skipped
from training.console import progress, say
from training.data.image_files import hash_images, list_images, say_skipped
from training.data.images import LabelledImage, labels_of
from training.data.layout import DataError, evaluation_folders, listed
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


def evaluate_run(
    run: Run, data: Path, views: int, *, cache: Path | None = None, limits: Limits = OWN_IMAGE_LIMITS
) -> tuple[Evaluation, list[LabelledImage], list[Skipped]]:
    """Evaluate with the run's own temperatures.

    Args:
        data: `CLASS/*`, `valid/CLASS/*` or the validation part of shards. Its classes must be some of the run's, or all
            of them; the metrics are over the images there are.
        cache: where activations are kept; None keeps them for this evaluation only.
        limits: larger images are left out.

    Returns:
        The evaluation, its images in order, and the files and folders left out.

    Raises:
        DataError: if there are other classes, with both lists, or no image can be read.
        RunError: if the run is incomplete.
    """
    images, left_out = _read(run, data, limits)
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

        logits_VNK, known, unreadable = view_logits(network, images, views=views, provider=provider)
    left_out = left_out + unreadable
    say_skipped(left_out)
    labels_N = labels_of(known)
    present = [run.classes[label] for label in sorted(set(labels_N.tolist()))]
    if len(present) < len(run.classes):
        say(
            f"images of {len(present):,} of the run's {len(run.classes):,} classes, and the metrics are of these: "
            f"{listed(present)}; there are none of {listed(set(run.classes) - set(present))}"
        )
    return evaluate(logits_VNK, labels_N, run.classes, run.temperatures), known, left_out


def _read(run: Run, data: Path, limits: Limits) -> tuple[list[LabelledImage], list[Skipped]]:
    """The images, labelled by the run's classes, and what is left out."""
    if is_sharded(data):
        index = load_index(data)
        _check_classes(run, data, index.classes)
        return [
            replace(image, label=run.classes.index(index.classes[image.label])) for image in index.split().valid
        ], []
    folders, left_out = evaluation_folders(data, run.classes)
    _check_classes(run, data, tuple(folders))
    listed_images, unread = list_images({name: folders.get(name, []) for name in run.classes}, limits)
    with progress("reading images") as on_progress:
        images, unreadable = hash_images(listed_images, on_progress)
    return images, left_out + unread + unreadable


def _check_classes(run: Run, data: Path, classes: tuple[str, ...]) -> None:
    if not classes or not set(classes) <= set(run.classes):
        raise DataError(
            "the classes differ, so predictions cannot be compared with labels.\n"
            f"  run:  {listed(run.classes, MAX_LISTED)}\n  data: {listed(classes, MAX_LISTED)}\n"
            f"  only in the data: {listed(set(classes) - set(run.classes))}\n"
            f"the classes of {data} must have names of the run's classes; some may be missing"
        )
