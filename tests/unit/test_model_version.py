"""Names of model versions: parsed and formatted in one place, and only well-formed ones are accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.bundle.model_version import (
    NAME_PATTERN,
    ModelVersion,
    parse_resource,
    parse_short_name,
    resource_name,
)

NAMES = st.from_regex(NAME_PATTERN, fullmatch=True)
VERSIONS = st.integers(1, 10**18 - 1)


@given(NAMES, VERSIONS)
def test_what_is_formatted_is_parsed_again(name: str, version: int) -> None:
    whole = ModelVersion(name, version)
    assert parse_resource(whole.resource) == parse_short_name(str(whole)) == (name, version)
    assert parse_resource(resource_name(name)) == parse_short_name(name) == (name, None)


def test_versions_are_ordered_by_name_and_then_by_number() -> None:
    versions = [ModelVersion("b", 1), ModelVersion("a", 10), ModelVersion("a", 9)]
    assert sorted(versions) == versions[::-1]
    assert {ModelVersion("a", 9): "found"}[versions[2]] == "found"


@pytest.mark.parametrize(
    "rest",
    ["", "Pets", "../pets", "pets/", "pets/versions/", "pets\n", "p" * 64]
    + [f"pets/versions/{version}" for version in ("0", "01", "-1", "1/", "x", "٣", "9" * 19)],
)
def test_other_names_are_rejected(rest: str) -> None:
    with pytest.raises(ValueError, match="write models/NAME or models/NAME/versions/VERSION"):
        parse_resource(f"models/{rest}")
    with pytest.raises(ValueError, match="write NAME or NAME/VERSION"):
        parse_short_name(rest.replace("/versions/", "/"))


def test_the_two_forms_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="'pets/1' is not a model name"):
        parse_resource("pets/1")
    with pytest.raises(ValueError, match="'models/pets/versions/1' is not a model name"):
        parse_short_name("models/pets/versions/1")
