"""Two tables of probabilities in; how well they agree out, or a ParityError."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.checks.checks import ParityError, Tolerances
from serving.bundle.manifest import Precision


@dataclass(frozen=True)
class Agreement:
    """How a graph's answers compare with the trained network's, on the same photos."""

    photos: int
    max_abs_diff: float
    """Largest difference of a probability."""
    mean_abs_diff: float
    agreement: float
    """Part of the photos that both give the same class."""
    correct: int
    """Right answers of the graph."""
    trained_correct: int
    """Right answers of the trained network."""
    worst: int
    """Row of the photo with the largest difference."""

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self)
        del fields["worst"]
        return fields


def compare(answers_NK: NDArray[np.float32], trained_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> Agreement:
    """Compare probabilities `[N, K]`; an answer that is no number makes the difference infinite.

    NaN in `trained_NK` stands for a low probability that was not recorded (see `training.runs.run`), and is not
    compared: since a row sums to 1, it cannot be far off where those that are compared agree.
    """
    known_NK = ~np.isnan(trained_NK)
    difference_NK = np.nan_to_num(np.abs(answers_NK - np.where(known_NK, trained_NK, 0)), nan=np.inf, posinf=np.inf)
    difference_NK[~known_NK & np.isfinite(answers_NK)] = 0
    difference_N = difference_NK.max(1)
    chosen, trained_chosen = answers_NK.argmax(1), np.nanargmax(trained_NK, 1)
    return Agreement(
        photos=len(labels_N),
        max_abs_diff=float(difference_N.max()),
        mean_abs_diff=float(difference_NK.sum() / known_NK.sum()),
        agreement=float((chosen == trained_chosen).mean()),
        correct=int((chosen == labels_N).sum()),
        trained_correct=int((trained_chosen == labels_N).sum()),
        worst=int(difference_N.argmax()),
    )


def check_agreement(
    found: Agreement, precision: Precision, tolerances: Tolerances, what: str, name_of_worst: object
) -> None:
    """Gate: what is deployed answers as what was trained.

    fp32 and fp16 are judged by the largest difference of a probability, INT8 by its answers and its accuracy.

    Raises:
        ParityError: with both figures.
    """
    if not np.isfinite(found.max_abs_diff):
        raise ParityError(f"{what} gives values that are no numbers, on {name_of_worst}")
    allowed = tolerances.max_diff(precision)
    if allowed is not None and found.max_abs_diff > allowed:
        raise ParityError(
            f"{what} differs from the trained network by {found.max_abs_diff:.1e} in a probability (allowed: "
            f"{allowed:.1e}), most on {name_of_worst}; it has {found.correct:,} of {found.photos:,} right, the trained "
            f"network {found.trained_correct:,}"
        )
    lost = found.trained_correct - found.correct
    changed = round((1 - found.agreement) * found.photos)
    # Of a few photos one may always differ: it says no more than that the network was undecided about it.
    if allowed is None and changed > max(1, (1 - tolerances.min_agreement) * found.photos + 1e-9):
        raise ParityError(
            f"{what} gives {100 * found.agreement:.2f}% of {found.photos:,} photos the trained network's class "
            f"(needed: {100 * tolerances.min_agreement:.2f}%)"
        )
    if allowed is None and lost > max(1, tolerances.max_accuracy_loss * found.photos + 1e-9):
        raise ParityError(
            f"{what} has {found.correct:,} of {found.photos:,} right and the trained network "
            f"{found.trained_correct:,}: {100 * lost / found.photos:.2f} points lost (allowed: "
            f"{100 * tolerances.max_accuracy_loss:.2f})"
        )
