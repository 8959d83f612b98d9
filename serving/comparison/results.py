"""The result of comparing two versions, by class and in all."""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.comparison.proportions import Interval, Rate
from serving.comparison.sequential import SequentialTest


@dataclass(frozen=True)
class PairCounts:
    """Labelled images that both versions classified."""

    both_correct: int
    only_first_correct: int
    only_second_correct: int
    both_incorrect: int

    @property
    def count(self) -> int:
        """The number of images."""
        return self.both_correct + self.only_first_correct + self.only_second_correct + self.both_incorrect


@dataclass(frozen=True)
class ClassDifference:
    """How the recall of one class differs."""

    name: str
    first: Rate
    second: Rate
    difference: Interval
    """The second version's recall minus the first's."""


@dataclass(frozen=True)
class Comparison:
    """Two versions of a model compared."""

    pairs: PairCounts | None = None
    """None if they are compared on different images."""
    first: Rate | None = None
    """Accuracy of the first version; None without labels."""
    second: Rate | None = None
    difference: Interval | None = None
    """The second version's accuracy minus the first's; None if one of them has no labels."""
    p_value: float | None = None
    """McNemar's exact test for pairs, otherwise Fisher's, two-sided; valid for one test at a time chosen beforehand."""
    sequential: SequentialTest | None = None
    """The test that is valid at any time; None without pairs."""
    labels_needed: int | None = None
    """How many labels of pairs decide the sequential test, in all, at the present shares; None if unknown."""
    classes: Sequence[ClassDifference] = ()
    """Classes for which both versions have labels, the largest differences first."""
