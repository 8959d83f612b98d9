"""The file with the choice of the primary version is written whole; one that is damaged or too large is an error."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.bundle.folder import find_bundles, open_newest
from serving.bundle.manifest import BundleError
from serving.bundle.primary_choice import FILE, MAX_BYTES, PrimaryChoice, changing_choice, read_choice, write_choice
from serving.bundle.shadow_version import parse_shadow
from tests.support.bundles import write_bundle

TIME = "2026-11-30T18:00:00.000Z"


def valid() -> dict[str, object]:
    change = {"action": "promote", "version": 4, "replaced": 3, "time": TIME, "figures": ""}
    return {"format": 1, "primary": 4, "earlier": [3], "history": [change]}


def test_promotions_can_be_undone_one_by_one() -> None:
    choice = PrimaryChoice().promoted(4, 3, TIME, "better").promoted(5, 4, TIME, "")
    assert (choice.version, choice.earlier) == (5, (3, 4))
    back = choice.rolled_back(TIME)
    assert (back.version, back.earlier) == (4, (3,))
    twice = back.rolled_back(TIME)
    assert (twice.version, twice.earlier) == (3, ())
    with pytest.raises(ValueError, match="no earlier version"):
        twice.rolled_back(TIME)
    assert [(each.action, each.version, each.replaced) for each in twice.history] == [
        ("promote", 4, 3),
        ("promote", 5, 4),
        ("rollback", 4, 5),
        ("rollback", 3, 4),
    ]


def test_what_is_written_is_read_again_and_stays_small(tmp_path: Path) -> None:
    choice = PrimaryChoice()
    for number in range(1, 300):
        choice = choice.promoted(number + 1, number, TIME, "figures\nof more than one line " + 1_000 * "ä")
    write_choice(tmp_path, choice)
    assert read_choice(tmp_path) == choice
    assert (len(choice.history), len(choice.earlier)) == (100, 20)
    assert (tmp_path / FILE).stat().st_size < MAX_BYTES
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_without_a_file_there_is_no_choice(tmp_path: Path) -> None:
    assert read_choice(tmp_path) == PrimaryChoice()
    assert read_choice(tmp_path / "missing") == PrimaryChoice()


def test_the_newest_version_can_be_chosen_again(tmp_path: Path) -> None:
    choice = PrimaryChoice().promoted(3, 4, TIME, "").promoted(None, 3, TIME, "")
    write_choice(tmp_path, choice)
    assert read_choice(tmp_path).version is None
    assert read_choice(tmp_path).rolled_back(TIME).version == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 2}, "format is 2"),
        ({"format": True}, "format is True"),
        ({"primary": "4"}, "primary is '4'"),
        ({"primary": True}, "primary is True"),
        ({"primary": 4.0}, "primary is 4.0"),
        ({"primary": 0}, "primary is 0"),
        ({"primary": 10**18}, "at most 18 digits"),
        ({"earlier": [None]}, "earlier is None"),
        ({"earlier": {"3": 3}}, "must be lists"),
        ({"earlier": [1] * 21}, "at most 20"),
        ({"history": [{}]}, "each change"),
        ({"history": [{**valid()["history"][0], "action": "rm"}]}, "action is 'rm'"),  # type: ignore[index]
        ({"history": [{**valid()["history"][0], "figures": "a\nb"}]}, "one line"),  # type: ignore[index]
        ({"history": [{**valid()["history"][0], "figures": 501 * "a"}]}, "one line"),  # type: ignore[index]
        ({"history": [valid()["history"][0]] * 101}, "at most 20"),  # type: ignore[index]
    ],
)
def test_other_values_are_rejected_with_the_reason(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    (tmp_path / FILE).write_text(json.dumps(valid()))
    assert read_choice(tmp_path).version == 4
    (tmp_path / FILE).write_text(json.dumps(valid() | changes))
    with pytest.raises(BundleError, match=reason) as caught:
        read_choice(tmp_path)
    assert "pawserve promote" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"[]", "not a JSON object"),
        (b"{}", "format is None"),
        (b"\xff\xfe", "utf-8"),
        (100_000 * b"[", "nested|Expecting|recursion"),
        (b" " * (MAX_BYTES + 1), "more than 262,144 bytes"),
        (b'{"format": 1, "primary": ' + 5_000 * b"9" + b"}", "cannot be used"),
    ],
)
def test_damaged_files_are_rejected_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(BundleError, match=reason):
        read_choice(tmp_path)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / FILE).write_bytes(content)
    with pytest.raises(BundleError):
        read_choice(folder)


def test_what_is_no_file_is_rejected_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(BundleError, match="not a file"):
        read_choice(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    with pytest.raises(BundleError, match="directory|not a file"):
        read_choice(tmp_path)
    (tmp_path / FILE).rmdir()
    (tmp_path / FILE).symlink_to(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="No such file"):
        read_choice(tmp_path)


def test_a_choice_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    write_choice(tmp_path, PrimaryChoice(3))
    with pytest.raises(RuntimeError), changing_choice(tmp_path):
        raise RuntimeError
    assert read_choice(tmp_path).version == 3


def test_a_server_that_starts_loads_the_promoted_version_beside_the_newest(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        write_bundle(tmp_path, "pets", number)
    write_choice(tmp_path / "pets", PrimaryChoice(2))

    def found(*wanted: str, keep: int = 1, shadow: str = "") -> list[int]:
        shadows = [parse_shadow(shadow)] if shadow else []
        return [each.manifest.version for each in find_bundles(tmp_path, wanted, keep, shadows)]

    assert found() == found("pets") == [2, 4]
    assert found(keep=3) == [2, 3, 4]
    assert found("pets/1") == [1]  # a version that the operator named
    assert found(shadow="pets/2") == [2, 4]  # promoted, so it is primary
    assert found(shadow="pets/4") == [2, 3]
    assert open_newest(tmp_path / "pets").manifest.version == 2
    write_choice(tmp_path / "pets", PrimaryChoice(9))  # not there
    assert found() == [4]
    assert open_newest(tmp_path / "pets").manifest.version == 4
    (tmp_path / "pets" / FILE).write_text("{")
    with pytest.raises(BundleError, match="primary.json"):
        found()


def test_the_only_version_may_be_a_shadow_that_was_promoted(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    write_choice(tmp_path / "pets", PrimaryChoice(1))
    [bundle] = find_bundles(tmp_path, [], 1, [parse_shadow("pets/1")])
    assert bundle.manifest.version == 1
