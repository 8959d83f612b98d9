"""Statistics of a time window: labels by the millisecond of their prediction, predictions by the minute."""

import random
import secrets

import pytest

from serving.statistics.store import Label, StatisticsStore, Window, WindowExpired
from tests.support.statistics import CAT, DOG, LONG_AGO_MS, PETS, Clock, label, matrix
from tests.support.waiting import LIMIT_S, eventually

MINUTE_MS = 60_000


@pytest.fixture(autouse=True)
def _set(clock: Clock) -> None:
    clock.now_ms = LONG_AGO_MS


def totals(store: StatisticsStore, start_ms: int | None = None, end_ms: int | None = None) -> tuple[int, int]:
    """Predictions and labels in a window."""
    statistics = store.read("pets", 1, Window(start_ms, end_ms))
    return (statistics[0].predictions, statistics[0].confusion.total) if statistics else (0, 0)


def test_a_window_includes_its_start_and_excludes_its_end(any_store: StatisticsStore) -> None:
    any_store.record([label(CAT, at_ms=at_ms) for at_ms in (1_000, 2_000, 3_000)]).result(LIMIT_S)

    windows = [(None, None), (1_000, 3_000), (1_001, 3_001), (3_000, None), (3_001, None), (None, 1_000), (None, 2_001)]
    assert [totals(any_store, *window)[1] for window in windows] == [3, 2, 2, 1, 0, 0, 2]


def test_predictions_are_counted_in_the_minutes_that_overlap_a_window(any_store: StatisticsStore, clock: Clock) -> None:
    for minute, count in ((10, 1), (11, 20), (12, 300)):
        clock.now_ms = minute * MINUTE_MS + 30_000
        any_store.count_predictions(PETS, CAT, count)

    def check() -> None:
        eleven = 11 * MINUTE_MS
        assert totals(any_store) == (321, 0)
        assert totals(any_store, eleven, eleven + MINUTE_MS) == (20, 0)
        assert totals(any_store, eleven + 59_000, eleven + MINUTE_MS + 1) == (320, 0)
        assert totals(any_store, None, eleven) == (1, 0)
        assert totals(any_store, None, eleven + 1) == (21, 0)
        assert totals(any_store, eleven + MINUTE_MS) == (300, 0)
        assert totals(any_store, 13 * MINUTE_MS) == (0, 0)

    check()  # in memory
    any_store.record([]).result(LIMIT_S)
    any_store.register_version(PETS, ("cat", "dog"))
    check()  # in the database


def test_a_correction_moves_the_count_in_the_window_of_the_prediction(any_store: StatisticsStore) -> None:
    token = secrets.token_bytes(16)
    any_store.record([label(DOG, token=token, at_ms=1_000)]).result(LIMIT_S)
    any_store.record([label(CAT, token=token, at_ms=1_000)]).result(LIMIT_S)
    for window in (Window(), Window(1_000, 1_001), Window(None, 2_000)):
        [statistics] = any_store.read("pets", 1, window)
        assert statistics.confusion.counts_KK.tolist() == [[1, 0], [0, 0]]
        assert statistics.last_label_ms is not None


def test_totals_and_windows_agree_with_the_labels_after_corrections(any_store: StatisticsStore) -> None:
    rng = random.Random(0)
    final: dict[bytes, Label] = {}
    for _ in range(30):
        batch = []
        for _ in range(rng.randrange(1, 20)):
            if final and rng.random() < 0.4:
                batch.append(Label(rng.choice(list(final.values())).record, rng.randrange(2)))
            else:
                chosen = {"predicted": rng.randrange(2), "probability": rng.random(), "at_ms": rng.randrange(1_000)}
                batch.append(label(rng.randrange(2), **chosen))  # type: ignore[arg-type]
            final[batch[-1].record.id] = batch[-1]
        any_store.record(batch).result(LIMIT_S)
    for start_ms, end_ms in ((None, None), (250, None), (None, 750), (250, 750)):
        first_ms, beyond_ms = start_ms or 0, end_ms or 1_000
        inside = [each for each in final.values() if first_ms <= each.record.time_ms < beyond_ms]
        [statistics] = any_store.read("pets", 1, Window(start_ms, end_ms))
        counts_KK = [[0, 0], [0, 0]]
        for each in inside:
            counts_KK[each.actual][each.record.predicted] += 1
        assert statistics.confusion.counts_KK.tolist() == counts_KK
        for each in statistics.calibration:
            held = [one for one in inside if each.lower <= one.record.probability < each.upper]
            assert (each.accuracy.count if each.accuracy else 0) == len(held)
            if held:
                assert each.accuracy is not None
                assert each.accuracy.value == sum(one.actual == one.record.predicted for one in held) / len(held)
                mean = sum(one.record.probability for one in held) / len(held)
                assert each.mean_probability == pytest.approx(mean, abs=1e-12)


def test_counts_are_correct_after_the_clock_jumps_back(any_store: StatisticsStore, clock: Clock) -> None:
    token = secrets.token_bytes(16)
    sent = label(CAT, token=token, at_ms=clock.now_ms)
    any_store.count_predictions(PETS, CAT)
    any_store.record([sent]).result(LIMIT_S)
    newest_ms = clock.now_ms
    clock.now_ms -= 3_600_000

    any_store.count_predictions(PETS, CAT)
    assert any_store.record([sent]).result(LIMIT_S) == [CAT]
    assert any_store.record([label(DOG, token=token, at_ms=newest_ms)]).result(LIMIT_S) == [CAT]
    assert eventually(lambda: any_store.read()[0].predictions == 2)
    assert matrix(any_store) == [[0, 0], [1, 0]]
    assert any_store.read()[0].last_label_ms == newest_ms
    assert totals(any_store, newest_ms) == (1, 1)
    assert totals(any_store, None, newest_ms - 60_000) == (1, 0)


def test_deleted_labels_stay_in_the_totals_and_cannot_be_recorded_again(any_store: StatisticsStore) -> None:
    old, new = label(DOG, at_ms=1_000), label(CAT, at_ms=5_000)
    any_store.record([old, new]).result(LIMIT_S)

    assert any_store.delete_labels(5_000, 10) == 1
    assert matrix(any_store) == [[1, 0], [1, 0]]
    too_old, again = any_store.record([Label(old.record, CAT), new]).result(LIMIT_S)
    assert isinstance(too_old, ValueError)
    assert again == CAT
    assert matrix(any_store) == [[1, 0], [1, 0]]
    assert totals(any_store, 5_000)[1] == 1
    assert totals(any_store, None, 5_000)[1] == 1
    for window in (Window(4_999, None), Window(None, 4_999), Window(1, 9_000)):
        with pytest.raises(WindowExpired) as caught:
            any_store.read(window=window)
        assert caught.value.labels_since_ms == 5_000


def test_an_earlier_time_does_not_restore_deleted_labels(any_store: StatisticsStore) -> None:
    old = label(DOG, at_ms=1_000)
    any_store.record([old]).result(LIMIT_S)
    any_store.delete_labels(5_000, 10)
    any_store.delete_labels(500, 10)

    [too_old] = any_store.record([old]).result(LIMIT_S)
    assert isinstance(too_old, ValueError)
    assert matrix(any_store) == [[0, 0], [1, 0]]
