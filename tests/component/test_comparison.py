"""GetComparison on a real server: over gRPC and HTTP, in the client and on the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from serving.bundle.model_version import ModelVersion
from serving.client import Client, ClientError
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.store import StatisticsStore
from tests.support.bundles import COLOURS, write_bundle
from tests.support.commands import run
from tests.support.comparisons import record_pairs
from tests.support.http import ask
from tests.support.servers import HttpServerProcess, http_server

ONE, TWO, THREE, FOUR = (f"models/colours/versions/{number}" for number in range(1, 5))
OTHER_CLASSES = ("blue", "yellow", "red")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServerProcess]:
    """Serves version 4. Versions 1 and 2 have pairs in both directions, 3 has labels of its own; 5 has none."""
    folder = tmp_path_factory.mktemp("compared")
    write_bundle(folder / "models", version=4)
    (folder / "state").mkdir()
    with StatisticsStore(folder / "state" / "statistics.sqlite") as store:
        for number in (1, 2, 3, 5):
            store.register_version(ModelVersion("colours", number), COLOURS)
        store.register_version(ModelVersion("colours", 6), OTHER_CLASSES)
        both, first, second = (True, True), (True, False), (False, True)
        record_pairs(store, "colours", 1, 2, [("red", 50, *both), ("blue", 30, *both), ("blue", 4, *first)])
        record_pairs(store, "colours", 1, 2, [("red", 2, *second), ("blue", 10, *second)])
        record_pairs(store, "colours", 2, 1, [("green", 7, *first), ("green", 3, False, False)])  # 2 is correct
        record_pairs(store, "colours", 3, None, [("red", 40, *both), ("blue", 10, *second)])
        record_pairs(store, "colours", 1, 6, [("red", 5, *both), ("blue", 1, *second)])
        record_pairs(store, "colours", 1, 6, [("green", 3, *first)])
    with http_server(folder) as server:
        yield server


def test_pairs_of_both_directions_are_compared(client: Client) -> None:
    compared = client.compare(ONE, TWO)
    pairs = compared.pairs
    assert (pairs.both_correct, pairs.only_first_correct, pairs.only_second_correct, pairs.both_incorrect) == (
        80,
        4,
        19,
        3,
    )
    assert (compared.first_accuracy.value, compared.second_accuracy.value) == (84 / 106, 99 / 106)
    assert compared.difference.value == pytest.approx(15 / 106)
    assert 0 < compared.difference.lower < compared.difference.upper < 0.25
    assert compared.p_value == pytest.approx(0.0026, abs=1e-4)
    assert [each.label for each in compared.class_differences] == ["green", "blue", "red"]
    green = compared.class_differences[0]
    assert (green.first.value, green.second.value, green.first.count) == (0.0, 0.7, 10)
    assert compared.sequential_test.verdict == pb.COMPARISON_VERDICT_SECOND_IS_BETTER
    assert compared.sequential_test.e_value > compared.sequential_test.threshold == 20
    assert not compared.warnings


def test_swapping_the_versions_swaps_the_result(client: Client) -> None:
    one, other = client.compare(ONE, TWO), client.compare(TWO, ONE)
    assert other.pairs.only_first_correct == one.pairs.only_second_correct
    assert other.difference.value == pytest.approx(-one.difference.value)
    assert other.difference.lower == pytest.approx(-one.difference.upper)
    assert other.sequential_test.verdict == pb.COMPARISON_VERDICT_FIRST_IS_BETTER
    assert other.sequential_test.e_value == pytest.approx(one.sequential_test.e_value)


def test_versions_without_pairs_are_compared_with_a_warning(client: Client) -> None:
    compared = client.compare(ONE, THREE)
    assert not compared.HasField("pairs")
    assert not compared.HasField("sequential_test")
    assert (compared.second_accuracy.value, compared.second_accuracy.count) == (0.8, 50)
    assert compared.HasField("p_value")
    assert [each.label for each in compared.class_differences] == ["blue", "red"]
    [warning] = compared.warnings
    assert "each is compared on its own images" in warning
    assert "--shadow" in warning


def test_labels_that_only_one_version_has_are_counted_apart(client: Client) -> None:
    compared = client.compare(ONE, "models/colours/versions/6")
    assert (compared.pairs.both_correct, compared.pairs.only_second_correct) == (5, 1)
    assert compared.pairs.not_comparable == 3
    assert ["3 images" in warning for warning in compared.warnings] == [True]
    swapped = client.compare("models/colours/versions/6", ONE)
    assert (swapped.pairs.both_correct, swapped.pairs.only_first_correct) == (5, 1)
    assert swapped.pairs.not_comparable == 3


def test_a_version_without_labels_has_no_difference(client: Client) -> None:
    for other in (FOUR, "models/colours/versions/5"):
        compared = client.compare(ONE, other)
        assert compared.first_accuracy.count > 0
        assert not compared.HasField("second_accuracy")
        assert not compared.HasField("difference")


@pytest.mark.parametrize(
    ("first", "second", "reason", "code"),
    [
        (ONE, ONE, "COMPARISON_INVALID", grpc.StatusCode.INVALID_ARGUMENT),
        (ONE, "models/cats/versions/2", "COMPARISON_INVALID", grpc.StatusCode.INVALID_ARGUMENT),
        (ONE, "models/colours", "MODEL_NAME_INVALID", grpc.StatusCode.INVALID_ARGUMENT),
        ("", TWO, "MODEL_NAME_INVALID", grpc.StatusCode.INVALID_ARGUMENT),
        (ONE, "models/colours/versions/99", "MODEL_NOT_FOUND", grpc.StatusCode.NOT_FOUND),
    ],
)
def test_invalid_requests_name_their_reason(
    client: Client, first: str, second: str, reason: str, code: grpc.StatusCode
) -> None:
    with pytest.raises(ClientError) as caught:
        client.compare(first, second)
    assert (caught.value.reason, caught.value.code) == (reason, code)


def test_http_answers_the_same(server: HttpServerProcess) -> None:
    compared = ask(server.url, f"/v1/comparison?first={ONE}&second={TWO}").json()
    assert compared["pairs"]["onlySecondCorrect"] == "19"
    assert compared["sequentialTest"]["verdict"] == "COMPARISON_VERDICT_SECOND_IS_BETTER"
    rejected = ask(server.url, f"/v1/comparison?first={ONE}")
    assert (rejected.status, rejected.reason) == (400, "MODEL_NAME_INVALID")


def test_the_command_prints_a_table_and_json(server: HttpServerProcess, tmp_path: Path) -> None:
    shown = run("serving", "compare", "colours", "1", "2", "--server", server.address)
    assert (shown.returncode, shown.stderr) == (0, "")
    for part in ("colours/2 is better", "valid at any time", "McNemar's exact test: p = 0.0026", "green"):
        assert part in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    described = json.loads(run("serving", "compare", "colours", "1", "2", "--json", "--server", server.address).stdout)
    assert described["pairs"]["only_second_correct"] == 19
    assert described["sequential_test"]["verdict"] == "SECOND_IS_BETTER"
    apart = run("serving", "compare", "colours", "1", "3", "--server", server.address)
    assert "warning: no labelled image was classified by both" in " ".join(apart.stdout.split())
    described = json.loads(run("serving", "compare", "colours", "1", "3", "--json", "--server", server.address).stdout)
    assert (described["pairs"], described["sequential_test"]) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("colours", "1", "1"), "give two versions"),
        (("colours", "1", "x"), "whole number"),
        (("Colours", "1", "2"), "name is 'Colours'"),
    ],
)
def test_wrong_use_of_the_command_is_explained(arguments: tuple[str, ...], message: str) -> None:
    ended = run("serving", "compare", *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
