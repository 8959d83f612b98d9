"""Prediction counts that wait for their database in; no more of them than fit, and none lost, out."""

from collections import Counter

from serving.statistics_updates import Counts

MOST = 10_000


def joined(counts: Counts, most: int = MOST) -> Counts:
    """The counts, minutes joined into spans of 2, 4, 8 … minutes if there would be more than `most` of them otherwise.

    A span's count is that of its first minute with one. How often a version predicted a class stays as it was, so one
    count for each (model, version, class) is left, however many those are.
    """
    if len(counts) <= most:
        return counts
    first, last = min(key[-1] for key in counts), max(key[-1] for key in counts)
    minutes = 1 if len({key[:-1] for key in counts}) <= most else max(1, last - first)
    while len(counts) > most and minutes <= last - first:
        minutes *= 2
        fewer: Counts = Counter()
        begins: dict[tuple[str, int, int, int], int] = {}
        for (model, version, predicted, minute), count in sorted(counts.items()):
            begin = begins.setdefault((model, version, predicted, (minute - first) // minutes), minute)
            fewer[model, version, predicted, begin] += count
        counts = fewer
    return counts
