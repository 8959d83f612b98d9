"""How far an exported graph may differ from the trained network, and the errors that say by how much it does."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.bundle.manifest import Precision


class CheckError(RuntimeError):
    """A graph failed a check; the message says what differs, where and by how much."""


class ParityError(CheckError):
    """A graph of the correct form differs too much; leaving more of its layers in float32 may help."""


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """How far each precision may differ from the trained network."""

    max_diff_fp32: float = 1e-4
    """fp32: largest difference of a probability."""
    max_diff_fp16: float = 5e-3
    """fp16: largest difference of a probability."""
    min_agreement: float = 0.995
    """INT8: smallest part of the validation images that get the same class; one image may always differ."""
    max_accuracy_loss: float = 0.003
    """INT8: largest loss of accuracy on the validation images; 0.003 is 0.3 points. One image may always be lost."""

    def __post_init__(self) -> None:
        for name in ("max_diff_fp32", "max_diff_fp16", "min_agreement", "max_accuracy_loss"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")

    def max_diff(self, precision: Precision) -> float | None:
        """Largest difference of a probability; None for INT8, which is checked by agreement and accuracy."""
        return {"fp32": self.max_diff_fp32, "fp16": self.max_diff_fp16}.get(precision)


@dataclass(frozen=True)
class Agreement:
    """How a graph's probabilities compare with those of a reference on the same images."""

    photos: int
    """Number of images compared; the manifest names it so."""
    max_abs_diff: float
    """Largest difference of a probability."""
    mean_abs_diff: float
    agreement: float
    """Part of the images for which both have the same top class."""
    correct: int
    """Correct predictions of the graph."""
    trained_correct: int
    """Correct predictions of the reference."""
    worst: int
    """Row of the image with the largest difference."""

    def to_json(self) -> dict[str, Any]:
        """The fields that the manifest holds."""
        fields = asdict(self)
        del fields["worst"]
        return fields


def compare(found_NK: NDArray[np.float32], expected_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> Agreement:
    """Compare probabilities `[N, K]`; a value in `found_NK` that is not finite makes the difference infinite.

    NaN in `expected_NK` stands for a low probability that was not recorded (see `training.runs.run`) and is not
    compared: since a row sums to 1, it cannot differ much where the others agree.
    """
    known_NK = ~np.isnan(expected_NK)
    difference_NK = np.nan_to_num(np.abs(found_NK - np.where(known_NK, expected_NK, 0)), nan=np.inf, posinf=np.inf)
    difference_NK[~known_NK & np.isfinite(found_NK)] = 0
    difference_N = difference_NK.max(1)
    found_N, expected_N = found_NK.argmax(1), np.nanargmax(expected_NK, 1)
    return Agreement(
        photos=len(labels_N),
        max_abs_diff=float(difference_N.max()),
        mean_abs_diff=float(difference_NK.sum() / known_NK.sum()),
        agreement=float((found_N == expected_N).mean()),
        correct=int((found_N == labels_N).sum()),
        trained_correct=int((expected_N == labels_N).sum()),
        worst=int(difference_N.argmax()),
    )


def check_agreement(
    found: Agreement, precision: Precision, tolerances: Tolerances, *, what: str, reference: str, worst_image: object
) -> None:
    """Check that a graph agrees with its reference.

    fp32 and fp16 are checked by the largest difference of a probability, INT8 by agreement and accuracy.

    Args:
        what: the graph, for messages.
        reference: what it was compared with, for messages.
        worst_image: the image with the largest difference, for messages.

    Raises:
        ParityError: with what was found and what is allowed.
    """
    if not np.isfinite(found.max_abs_diff):
        raise ParityError(f"{what} gives values that are not finite, on {worst_image}")
    allowed = tolerances.max_diff(precision)
    if allowed is not None:
        if found.max_abs_diff > allowed:
            raise ParityError(
                f"{what} differs from {reference} by {found.max_abs_diff:.1e} in a probability (allowed: "
                f"{allowed:.1e}), most on {worst_image}; correct: {found.correct:,} of {found.photos:,}, {reference}: "
                f"{found.trained_correct:,}"
            )
        return
    lost = found.trained_correct - found.correct
    changed = round((1 - found.agreement) * found.photos)
    # One image may always differ: on a small set it only shows that the network was undecided about it.
    if changed > max(1, (1 - tolerances.min_agreement) * found.photos + 1e-9):
        raise ParityError(
            f"{what} has an agreement of {100 * found.agreement:.2f}% with {reference} on {found.photos:,} images "
            f"(needed: {100 * tolerances.min_agreement:.2f}%)"
        )
    if lost > max(1, tolerances.max_accuracy_loss * found.photos + 1e-9):
        raise ParityError(
            f"{what} is correct on {found.correct:,} of {found.photos:,} images and {reference} on "
            f"{found.trained_correct:,}: {100 * lost / found.photos:.2f} points lost (allowed: "
            f"{100 * tolerances.max_accuracy_loss:.2f})"
        )
