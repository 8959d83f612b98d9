"""Prediction counts that wait for an unavailable database: bounded in number, with correct totals."""

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from serving.bundle.model_version import ModelVersion
from serving.statistics.queries import MS_PER_MINUTE
from serving.statistics.store import StatisticsStore
from serving.statistics.updates import MAX_WAITING_COUNTS, coarsen
from tests.support.statistics import CAT, CLASSES, DOG, PETS, SHORT_S, fails, label, locked, rows
from tests.support.waiting import LIMIT_S

KEYS = st.tuples(
    st.builds(ModelVersion, st.sampled_from(["cats", "pets"]), st.integers(1, 2)),
    st.integers(0, 2),
    st.integers(29_000_000, 29_000_400),
)


def totals(counts: Counter[tuple[ModelVersion, int, int]]) -> Counter[tuple[ModelVersion, int]]:
    return sum((Counter({key[:-1]: count}) for key, count in counts.items()), Counter[tuple[ModelVersion, int]]())


@given(st.dictionaries(KEYS, st.integers(1, 9)), st.integers(1, 40))
def test_minutes_are_merged_until_the_counts_fit_and_totals_stay(
    counts: dict[tuple[ModelVersion, int, int], int], most: int
) -> None:
    before = Counter(counts)
    after = coarsen(before, most)
    assert totals(after) == totals(before)
    assert len(after) <= max(most, len(totals(before)))
    assert set(after) <= set(before)  # minutes of the outage
    if len(before) <= most:
        assert after == before


def test_spans_are_no_longer_than_necessary() -> None:
    a_day = Counter({(PETS, CAT, minute): 1 for minute in range(1440)})
    assert sorted(coarsen(a_day, 720).values()) == [2] * 720
    assert sorted(coarsen(a_day, 719).values()) == [4] * 360


def test_weeks_without_a_database_keep_a_bounded_number_of_counts(
    path: Path,
) -> None:
    minute = 29_000_000

    def a_minute_later() -> int:
        nonlocal minute
        minute += 1
        return minute * MS_PER_MINUTE

    with StatisticsStore(path, lock_timeout_s=SHORT_S, clock=a_minute_later) as store:
        store.register_version(PETS, CLASSES)
        with locked(path):
            for _ in range(12_000):  # 24,000 minutes are 17 days
                store.count_predictions(PETS, CAT, 2)
                store.count_predictions(PETS, DOG, 1)
            fails(store.record([label(DOG)]), "database is locked")
        store.record([label(CAT)]).result(LIMIT_S)
    counted = "SELECT predicted, sum(count) FROM predictions GROUP BY predicted ORDER BY predicted"
    assert rows(path, counted) == [(CAT, 24_000), (DOG, 12_000)]
    [(stored,)] = rows(path, "SELECT count(*) FROM prediction_minutes")
    assert MAX_WAITING_COUNTS / 4 < stored <= MAX_WAITING_COUNTS
