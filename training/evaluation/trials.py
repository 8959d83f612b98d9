"""Decides from held-out training images whether a step of a recipe improves on the step before."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics import Paired, compare, nll_of
from training.evaluation.temperature import fit_temperature, softmax

CONFIDENCE = 2.241
"""Standard errors: the quantile of the normal distribution for a chance of 5% in all, divided by the four candidates of
two stages (Bonferroni)."""


@dataclass(frozen=True)
class HeldOut:
    """Logits of images that a network was not trained on."""

    clean_NK: NDArray[np.float32]
    shifted_NK: NDArray[np.float32]
    """Logits of a shifted copy of each image."""
    labels_N: NDArray[np.int64]

    def losses_2N(self) -> NDArray[np.float64]:
        """Negative log likelihood of the label: of each image, of its shifted copy.

        At the temperature that fits the images as they are, as a deployed network has it.
        """
        temperature = fit_temperature(self.clean_NK, self.labels_N)
        both = (self.clean_NK, self.shifted_NK)
        return np.stack([nll_of(softmax(each, temperature), self.labels_N) for each in both])

    def correct_2N(self) -> NDArray[np.bool_]:
        """Whether each image, and its shifted copy, is classified correctly."""
        return np.stack([each.argmax(1) == self.labels_N for each in (self.clean_NK, self.shifted_NK)])


@dataclass(frozen=True)
class Candidate:
    """A network that a step may end with, measured on held-out images and their shifted copies."""

    part: float
    """Part of the step's weights; the rest are those of the step before. 0 is the step before."""
    errors: int
    shifted_errors: int
    nll: float
    shifted_nll: float
    nll_change: float = 0.0
    """Against the step before, the mean over images and copies."""
    standard_error: float = 0.0
    """Standard error of `nll_change`, over images."""
    paired: Paired = Paired(0, 0, 1.0)
    """Against the step before, over images and copies."""

    @property
    def improves(self) -> bool:
        """Whether the loss is certainly lower, by CONFIDENCE standard errors, with no more errors."""
        return self.nll_change < -CONFIDENCE * self.standard_error and self.paired.broken <= self.paired.fixed

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "paired"} | self.paired.to_json()

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Candidate":
        others = dict(fields)
        paired = Paired(others.pop("gained"), others.pop("lost"), others.pop("p_value"))
        return cls(**others, paired=paired)


@dataclass(frozen=True)
class Trial:
    """The measurement of a step on held-out images."""

    name: str
    size: int | None
    images: int
    part: float
    """Best part of the step's weights: 0 leaves the step out, 1 takes them all."""
    candidates: list[Candidate]
    """Candidates by part, that of 0 first; of the first step only the step itself."""
    seconds: float

    @property
    def before(self) -> Candidate:
        """The step before."""
        return self.candidates[0]

    @property
    def shown(self) -> Candidate:
        """The candidate that was chosen or, if the step is left out, the best of the others."""
        after = self.candidates[1:] or self.candidates
        return next((each for each in after if each.part == self.part), min(after, key=lambda each: each.nll_change))

    @property
    def hopeless(self) -> bool:
        """Whether every part is worse than the step before, by more than twice the standard error."""
        after = self.candidates[1:]
        return bool(after) and all(each.nll_change > 2 * each.standard_error for each in after)

    def describe(self) -> str:
        """One line for the user."""
        before, after = self.before, self.shown
        what = f"{self.name}, on {self.images:,} held-out training images, and shifted copies of them"
        if len(self.candidates) == 1:
            return f"{what}: {after.errors:,} and {after.shifted_errors:,} errors"
        verdict = "left out, no better than the step before"
        if self.part:
            verdict = "kept" if self.part == 1 else f"kept, with {self.part:.0%} of its change of the weights"
        return (
            f"{what}: errors {before.errors:,} and {before.shifted_errors:,} -> {after.errors:,} and "
            f"{after.shifted_errors:,}, log loss {before.nll:.4f} and {before.shifted_nll:.4f} -> {after.nll:.4f} and "
            f"{after.shifted_nll:.4f} (change {after.nll_change:+.4f}, standard error {after.standard_error:.4f}): "
            f"{verdict}"
        )

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"candidates": [each.to_json() for each in self.candidates]}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Trial":
        return cls(**(dict(fields) | {"candidates": [Candidate.from_json(each) for each in fields["candidates"]]}))


def judge(name: str, size: int | None, held: Mapping[float, HeldOut], seconds: float) -> Trial:
    """Choose how much of a step to keep.

    Args:
        held: by the part of the step's weights; without 0, which is the step before, the step is kept whole.
        seconds: that the trial took.

    Returns:
        The trial. Of the parts that improve on the step before, the one with the lowest loss is chosen.
    """
    parts = sorted(held)
    before = held[parts[0]]
    base_2N, correct_2N = before.losses_2N(), before.correct_2N()
    candidates = []
    for part in parts:
        losses_2N, now_2N = held[part].losses_2N(), held[part].correct_2N()
        errors, shifted_errors = (~now_2N).sum(1).tolist()
        difference_N = (losses_2N - base_2N).mean(0)
        candidates.append(
            Candidate(
                part=part,
                errors=errors,
                shifted_errors=shifted_errors,
                nll=float(losses_2N[0].mean()),
                shifted_nll=float(losses_2N[1].mean()),
                nll_change=float(difference_N.mean()),
                standard_error=float(difference_N.std() / len(difference_N) ** 0.5),
                paired=compare(correct_2N.ravel(), now_2N.ravel()),
            )
        )
    better = [each for each in candidates[1:] if each.improves]
    chosen = min(better, key=lambda each: each.nll_change).part if better else parts[0]
    return Trial(name, size, len(before.labels_N), chosen, candidates, round(seconds, 3))
