"""How far an exported graph may differ from the trained network, and the errors that say by how much it does."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.bundle.manifest import Precision
from serving.comparison.proportions import Z_95_ONE_SIDED, wilson


class CheckError(RuntimeError):
    """A graph failed a check; the message says what differs, where and by how much."""


class ParityError(CheckError):
    """A graph of the correct form differs too much; leaving more of its layers in float32 may help.

    `excess` is the difference found as a multiple of the one allowed, by which attempts are compared.
    """

    def __init__(self, message: str, excess: float) -> None:
        super().__init__(message)
        self.excess = excess


class NotFiniteError(CheckError):
    """A graph gives values that are not finite, for the image in `row` of those it was checked on."""

    def __init__(self, what: str, image: object, row: int) -> None:
        super().__init__(f"{what} gives values that are not finite, on {image}")
        self.row = row


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """How far each precision may differ from the trained network."""

    max_diff_fp32: float = 1e-4
    """fp32: largest difference of a probability."""
    max_diff_fp16: float = 5e-3
    """fp16: largest difference of a probability."""
    min_agreement: float = 0.995
    """INT8: smallest part of the validation images that get the same class or the correct one. The check fails if the
    part is smaller with 95% confidence, or if twice as many images differ here; one may always differ."""
    max_accuracy_loss: float = 0.003
    """INT8: largest loss of accuracy on the validation images; 0.003 is 0.3 points. The check fails if the loss is
    larger with 95% confidence, or twice as large here; one image may always be lost."""

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

    images: int
    """Number of images compared."""
    max_abs_diff: float
    """Largest difference of a probability."""
    mean_abs_diff: float
    agreement: float
    """Part of the images for which both have the same top class."""
    correct: int
    """Correct predictions of the graph."""
    trained_correct: int
    """Correct predictions of the reference."""
    fixed: int
    """Images that only the graph classifies correctly."""
    broken: int
    """Images that only the reference classifies correctly."""
    worst: int
    """Row of the image with the largest difference."""

    def to_json(self) -> dict[str, Any]:
        """The fields that the manifest holds."""
        fields = asdict(self)
        del fields["worst"]
        return {"photos": fields.pop("images")} | fields


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
        images=len(labels_N),
        max_abs_diff=float(difference_N.max()),
        mean_abs_diff=float(difference_NK.sum() / known_NK.sum()),
        agreement=float((found_N == expected_N).mean()),
        correct=int((found_N == labels_N).sum()),
        trained_correct=int((expected_N == labels_N).sum()),
        fixed=int(((found_N == labels_N) & (expected_N != labels_N)).sum()),
        broken=int(((found_N != labels_N) & (expected_N == labels_N)).sum()),
        worst=int(difference_N.argmax()),
    )


def check_agreement(
    found: Agreement, precision: Precision, tolerances: Tolerances, *, what: str, reference: str, worst_image: object
) -> None:
    """Check that a graph agrees with its reference.

    fp32 and fp16 are checked by the largest difference of a probability, INT8 by agreement and accuracy, with regard to
    the number of images: see `Tolerances`. An image of which only the graph predicts the class correctly counts as
    agreement.

    Args:
        what: the graph, for messages.
        reference: what it was compared with, for messages.
        worst_image: the image with the largest difference, for messages.

    Raises:
        ParityError: with what was found and what is allowed.
        NotFiniteError: if a value is not finite.
    """
    if not np.isfinite(found.max_abs_diff):
        raise NotFiniteError(what, worst_image, found.worst)
    allowed = tolerances.max_diff(precision)
    if allowed is not None:
        if found.max_abs_diff > allowed:
            raise ParityError(
                f"{what} differs from {reference} by {found.max_abs_diff:.1e} in a probability (allowed: "
                f"{allowed:.1e}), most on {worst_image}; correct: {found.correct:,} of {found.images:,}, {reference}: "
                f"{found.trained_correct:,}",
                excess=found.max_abs_diff / allowed if allowed else np.inf,
            )
        return
    differing = round((1 - found.agreement) * found.images) - found.fixed
    _check_part(
        differing / found.images,
        wilson(differing, found.images, Z_95_ONE_SIDED).lower,
        1 - tolerances.min_agreement,
        found.images,
        f"{what} has an agreement of {100 * found.agreement:.2f}% with {reference} on {found.images:,} images (needed: "
        f"{100 * tolerances.min_agreement:.2f}%)"
        + (f", {found.fixed:,} of the others corrected, which count as agreement" if found.fixed else ""),
    )
    loss = found.broken - found.fixed
    _check_part(
        loss / found.images,
        _lowest_loss(found.broken, found.fixed, found.images),
        tolerances.max_accuracy_loss,
        found.images,
        f"{what} is correct on {found.correct:,} of {found.images:,} images and {reference} on "
        f"{found.trained_correct:,}: {100 * loss / found.images:.2f} points lost (allowed: "
        f"{100 * tolerances.max_accuracy_loss:.2f})",
    )


def _check_part(part: float, lowest: float, allowed: float, images: int, message: str) -> None:
    """Check that a part of the images is not larger than allowed.

    Args:
        part: found in this sample.
        lowest: what the part is at least, with 95% confidence.
    """
    if part * images <= 1:  # on a small set one image only shows that the network was undecided about it
        return
    if part > 2 * allowed + 1e-9:
        reason = "more than twice what is allowed"
    elif lowest > allowed:
        reason = f"with 95% confidence at least {100 * lowest:.2f}%, where {100 * allowed:.2f}% may"
    else:
        return
    raise ParityError(f"{message}: {reason}", excess=part / allowed if allowed else np.inf)


def _lowest_loss(broken: int, fixed: int, images: int) -> float:
    """The accuracy that was lost, at least, with 95% confidence, from paired predictions.

    A half is added to each of the four counts (Agresti and Min 2005, "Simple improved confidence intervals for
    comparing matched proportions").
    """
    size, loss = images + 2, broken - fixed
    return float((loss - Z_95_ONE_SIDED * np.sqrt(broken + fixed + 1 - loss * loss / size)) / size)
