"""A label counts once for the version that answered, once for its shadow, and once for the pair, in any order."""

import random
import secrets
from collections import Counter
from pathlib import Path

import pytest

from serving.bundle.model_version import ModelVersion
from serving.statistics.export import export_labels
from serving.statistics.store import ALL_TIME, Label, ShadowResult, StatisticsStore, Window, WindowExpired
from tests.support.commands import run_programs_at_once
from tests.support.statistics import CAT, CLASSES, DOG, LONG_AGO_MS, PETS, label, matrix
from tests.support.waiting import LIMIT_S

SHADOW = ModelVersion("pets", 2)
REORDERED = ModelVersion("pets", 3)
NO_DOGS = ModelVersion("pets", 4)
OTHER_CLASSES = {REORDERED: ("dog", "bird", "cat"), NO_DOGS: ("bird", "cat")}
CAT_HERE = ShadowResult(2, CAT, 0.9)
DOG_HERE = ShadowResult(2, DOG, 0.6)


@pytest.fixture
def store(any_store: StatisticsStore) -> StatisticsStore:
    """Statistics of four versions in each kind of database."""
    any_store.register_version(SHADOW, CLASSES)
    for version, classes in OTHER_CLASSES.items():
        any_store.register_version(version, classes)
    return any_store


def shadowed(actual: int, shadow: ShadowResult | None, **more: object) -> Label:
    made = label(actual, **more)  # type: ignore[arg-type]
    return Label(made.record, made.actual, shadow)


def pairs(store: StatisticsStore, shadow: int = 2, window: Window = ALL_TIME) -> list[list[list[int]]]:
    return list(store.read_pairs("pets", 1, shadow, window).counts_K22.tolist())


def test_a_label_counts_for_both_versions_and_for_the_pair(store: StatisticsStore) -> None:
    sent = [shadowed(CAT, CAT_HERE), shadowed(DOG, DOG_HERE), shadowed(DOG, CAT_HERE), label(CAT, predicted=DOG)]
    assert store.record(sent).result(LIMIT_S) == [None] * 4

    assert matrix(store) == [[1, 1], [2, 0]]
    assert matrix(store, version=2) == [[1, 0], [1, 1]]
    assert pairs(store) == [[[0, 0], [0, 1]], [[1, 1], [0, 0]]]
    [statistics] = store.read("pets", 2)
    assert [each.mean_probability for each in statistics.calibration if each.accuracy] == [0.6, 0.9]
    assert statistics.last_label_ms == store.read("pets", 1)[0].last_label_ms


@pytest.mark.parametrize("order", ["together", "label first", "shadow first in the batch", "one transaction"])
def test_the_order_of_label_and_shadow_result_makes_no_difference(store: StatisticsStore, order: str) -> None:
    whole = shadowed(DOG, DOG_HERE)
    bare = Label(whole.record, DOG)
    if order == "together":
        store.record([whole]).result(LIMIT_S)
    elif order == "label first":
        store.record([bare]).result(LIMIT_S)
        assert matrix(store, version=2) == [[0, 0], [0, 0]]
        assert store.attach_shadows([(whole.record.id, DOG_HERE)]).result(LIMIT_S) == 1
    elif order == "shadow first in the batch":
        assert store.record([whole, bare]).result(LIMIT_S) == [None, DOG]
    else:
        waiting = store.record([bare])
        attached = store.attach_shadows([(whole.record.id, DOG_HERE)])  # in the label's transaction, or after it
        assert (waiting.result(LIMIT_S), attached.result(LIMIT_S)) == ([None], 1)

    assert matrix(store) == [[0, 0], [1, 0]]
    assert matrix(store, version=2) == [[0, 0], [0, 1]]
    assert pairs(store) == [[[0, 0], [0, 0]], [[0, 1], [0, 0]]]


def test_repetitions_change_nothing(store: StatisticsStore) -> None:
    whole = shadowed(DOG, DOG_HERE)
    for _ in range(3):
        store.record([whole, whole]).result(LIMIT_S)
        store.record([Label(whole.record, DOG)]).result(LIMIT_S)
        other = Label(whole.record, DOG, ShadowResult(3, 0, 0.5))  # a prediction has one shadow
        store.record([other]).result(LIMIT_S)
        results = [(whole.record.id, DOG_HERE), (whole.record.id, CAT_HERE)]
        assert store.attach_shadows(results).result(LIMIT_S) == 0

    assert matrix(store) == [[0, 0], [1, 0]]
    assert matrix(store, version=2) == [[0, 0], [0, 1]]
    assert pairs(store) == [[[0, 0], [0, 0]], [[0, 1], [0, 0]]]
    assert store.read("pets", 3) == []


def test_a_label_sent_again_with_a_shadow_result_adds_it(store: StatisticsStore) -> None:
    whole = shadowed(DOG, DOG_HERE)
    store.record([Label(whole.record, DOG)]).result(LIMIT_S)
    assert store.record([whole]).result(LIMIT_S) == [DOG]
    assert matrix(store) == [[0, 0], [1, 0]]
    assert matrix(store, version=2) == [[0, 0], [0, 1]]


def test_a_correction_moves_both_versions_and_the_pair(store: StatisticsStore) -> None:
    whole = shadowed(DOG, DOG_HERE)
    store.record([whole]).result(LIMIT_S)
    assert store.record([Label(whole.record, CAT)]).result(LIMIT_S) == [DOG]  # by a server without the shadow's result

    assert matrix(store) == [[1, 0], [0, 0]]
    assert matrix(store, version=2) == [[0, 1], [0, 0]]
    assert pairs(store) == [[[0, 0], [1, 0]], [[0, 0], [0, 0]]]


def test_results_that_cannot_be_counted_are_left_out(store: StatisticsStore) -> None:
    known = label(DOG)
    store.record([known]).result(LIMIT_S)
    id_ = known.record.id
    bad = [
        (secrets.token_bytes(16), DOG_HERE),  # no label
        (id_, ShadowResult(1, DOG, 0.5)),  # the version that answered
        (id_, ShadowResult(9, DOG, 0.5)),  # unregistered
        (id_, ShadowResult(2, 2, 0.5)),  # no such class
    ]
    assert store.attach_shadows(bad).result(LIMIT_S) == 0
    assert store.attach_shadows([]).result(LIMIT_S) == 0
    assert [each.version.version for each in store.read()] == [1]


@pytest.mark.parametrize(
    ("shadow", "message"),
    [
        (ShadowResult(1, DOG, 0.5), "shadow's version is pets/1, which answered itself"),
        (ShadowResult(9, DOG, 0.5), "pets/9 is not registered"),
        (ShadowResult(2, 2, 0.5), "shadow's predicted is 2; pets/2 has 2 classes"),
        (ShadowResult(2, DOG, 1.5), "probability is 1.5"),
    ],
)
def test_labels_with_an_invalid_shadow_result_are_rejected(
    store: StatisticsStore, shadow: ShadowResult, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        store.record([shadowed(DOG, shadow)])
    assert store.read() == []


def test_classes_of_the_two_versions_are_matched_by_name(store: StatisticsStore) -> None:
    """Version 3 has the same classes at other indices and one more; version 4 has no dogs."""
    dogs = [shadowed(DOG, ShadowResult(3, 0, 0.5)), shadowed(DOG, ShadowResult(3, 1, 0.5))]
    cats = [shadowed(CAT, ShadowResult(3, 2, 0.5)), shadowed(CAT, ShadowResult(4, 1, 0.5))]
    incomparable = [shadowed(DOG, ShadowResult(4, 0, 0.5)), shadowed(DOG, ShadowResult(4, 1, 0.5))]
    store.record([*dogs, *cats, *incomparable]).result(LIMIT_S)

    assert matrix(store, version=3) == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert matrix(store, version=4) == [[0, 0], [0, 1]]
    assert pairs(store, 3) == [[[0, 0], [0, 1]], [[1, 1], [0, 0]]]
    for window in (ALL_TIME, Window(start_ms=0), Window(end_ms=LONG_AGO_MS + 1)):
        counted = store.read_pairs("pets", 1, 4, window)
        assert counted.counts_K22.tolist() == [[[0, 0], [0, 1]], [[0, 0], [0, 0]]]
        assert counted.not_comparable == 2
    # a correction from a class that the shadow does not have to one that it has, and back
    store.record([Label(incomparable[1].record, CAT)]).result(LIMIT_S)
    assert matrix(store, version=4) == [[0, 0], [0, 2]]
    assert store.read_pairs("pets", 1, 4).not_comparable == 1
    store.record([Label(incomparable[1].record, DOG)]).result(LIMIT_S)
    assert matrix(store, version=4) == [[0, 0], [0, 1]]
    assert store.read_pairs("pets", 1, 4).not_comparable == 2


def test_retention_keeps_the_totals_of_shadows_and_pairs(store: StatisticsStore) -> None:
    old, new = shadowed(DOG, DOG_HERE, at_ms=1_000), shadowed(CAT, DOG_HERE, at_ms=5_000)
    store.record([old, new]).result(LIMIT_S)
    assert store.delete_labels(5_000, 10) == 1

    assert store.attach_shadows([(old.record.id, CAT_HERE)]).result(LIMIT_S) == 0
    assert matrix(store, version=2) == [[0, 1], [0, 1]]
    assert pairs(store) == [[[0, 0], [1, 0]], [[0, 1], [0, 0]]]
    assert pairs(store, window=Window(5_000)) == [[[0, 0], [1, 0]], [[0, 0], [0, 0]]]
    assert pairs(store, window=Window(None, 5_000)) == [[[0, 0], [0, 0]], [[0, 1], [0, 0]]]
    with pytest.raises(WindowExpired):
        pairs(store, window=Window(4_999))


def test_versions_without_pairs_have_none_and_unknown_versions_are_reported(store: StatisticsStore) -> None:
    assert pairs(store) == [[[0, 0], [0, 0]]] * 2
    with pytest.raises(LookupError, match="pets/9 was never served"):
        store.read_pairs("pets", 9, 1)


def test_totals_and_windows_agree_with_the_labels_after_any_sequence(store: StatisticsStore) -> None:
    rng = random.Random(0)
    final: dict[bytes, Label] = {}
    for _ in range(40):
        batch: list[Label] = []
        for _ in range(rng.randrange(1, 15)):
            record = label(0, predicted=rng.randrange(2), at_ms=rng.randrange(1_000)).record
            if final and rng.random() < 0.5:
                record = rng.choice(list(final.values())).record
            before = final.get(record.id)
            version, classes = rng.choice([(SHADOW, CLASSES), *OTHER_CLASSES.items()])
            result = ShadowResult(version.version, rng.randrange(len(classes)), rng.random())
            sent = Label(record, rng.randrange(2), rng.choice([None, result]))
            batch.append(sent)
            final[record.id] = Label(record, sent.actual, (before and before.shadow) or sent.shadow)
        store.record(batch).result(LIMIT_S)
        late = [
            (id_, ShadowResult(2, rng.randrange(2), rng.random()))
            for id_, each in final.items()
            if each.shadow is None and rng.random() < 0.3
        ]
        assert store.attach_shadows(late).result(LIMIT_S) == len(late)
        final |= {id_: Label(final[id_].record, final[id_].actual, result) for id_, result in late}

    for window in (ALL_TIME, Window(250), Window(None, 750), Window(250, 750)):
        first_ms, beyond_ms = window.start_ms or 0, window.end_ms or 1_000
        inside = [each for each in final.values() if first_ms <= each.record.time_ms < beyond_ms]
        for version, classes in [(SHADOW, CLASSES), *OTHER_CLASSES.items()]:
            held = [(each, each.shadow) for each in inside if each.shadow and each.shadow.version == version.version]
            expected: Counter[tuple[int, int, int]] = Counter()
            counts_KK = [[0] * len(classes) for _ in classes]
            for each, result in held:
                name = CLASSES[each.actual]
                if name in classes:
                    correct = classes[result.predicted] == name
                    expected[each.actual, int(each.record.predicted == each.actual), int(correct)] += 1
                    counts_KK[classes.index(name)][result.predicted] += 1
            [statistics] = store.read("pets", version.version, window)
            assert statistics.confusion.counts_KK.tolist() == counts_KK
            assert sum(each.accuracy.count for each in statistics.calibration if each.accuracy) == expected.total()
            counted = store.read_pairs("pets", 1, version.version, window)
            assert {cell: int(counted.counts_K22[cell]) for cell in expected} == expected
            assert counted.counts_K22.sum() == expected.total()
            assert counted.not_comparable == len(held) - expected.total()
        [answered] = store.read("pets", 1, window)
        assert answered.confusion.total == len(inside)


def test_an_export_has_a_row_for_each_version_that_classified(store: StatisticsStore, url: str, tmp_path: Path) -> None:
    sent = shadowed(DOG, ShadowResult(3, 0, 0.875))
    store.record([sent, shadowed(CAT, None), shadowed(DOG, ShadowResult(4, 0, 0.5))]).result(LIMIT_S)
    lines = {version: exported(url, tmp_path, version) for version in (None, 1, 2, 3, 4)}

    assert [len(lines[version]) for version in (None, 1, 2, 3, 4)] == [4, 3, 0, 1, 0]
    assert lines[3][0].startswith(f"{sent.record.id.hex()},pets,3,dog,dog,0.875,")
    mine = [line for line in lines[None] if line.startswith(sent.record.id.hex())]
    assert [line.split(",")[2:5] for line in mine] == [["1", "cat", "dog"], ["3", "dog", "dog"]]


def exported(url: str, folder: Path, version: int | None) -> list[str]:
    out = folder / "labels.csv"
    export_labels(url, out, "pets", version)
    return out.read_text().splitlines()[1:]


def test_processes_that_record_and_attach_the_same_predictions_count_each_once(url: str, tmp_path: Path) -> None:
    """Each process records all labels and attaches all results, in its own order."""
    program = (
        "import random, sys\n"
        "from serving.statistics.store import Label, ShadowResult, StatisticsStore\n"
        "from serving.tokens.tokens import PredictionRecord\n"
        "rng = random.Random(int(sys.argv[2]))\n"
        "with StatisticsStore(sys.argv[1], lock_timeout_s=300) as store:\n"
        "    sys.stdin.readline()\n"
        "    numbers = list(range(200))\n"
        "    rng.shuffle(numbers)\n"
        "    for start in range(0, 200, 20):\n"
        "        some = numbers[start : start + 20]\n"
        "        records = [PredictionRecord(n.to_bytes(16), 'pets', 1, n % 2, 0.75, 1000 + n) for n in some]\n"
        "        results = [ShadowResult(2, n // 2 % 2, 0.5) for n in some]\n"
        "        with_results = rng.random() < 0.5\n"
        "        labels = [Label(r, n // 4 % 2, s if with_results else None)\n"
        "                  for n, r, s in zip(some, records, results)]\n"
        "        recorded = store.record(labels)\n"
        "        attached = store.attach_shadows([(r.id, s) for r, s in zip(records, results)])\n"
        "        recorded.result(300), attached.result(300)\n"
    )
    with StatisticsStore(url) as store:
        store.register_version(PETS, CLASSES)
        store.register_version(SHADOW, CLASSES)
        run_programs_at_once([(program, url, number) for number in range(3)])
        assert matrix(store) == matrix(store, version=2) == [[50, 50], [50, 50]]
        assert pairs(store) == [[[25, 25], [25, 25]]] * 2
