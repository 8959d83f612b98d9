"""Times as people write them are parsed."""

from datetime import UTC, datetime, timedelta

import pytest

from serving.system.times import parse_time

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(days=1)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
    ],
)
def test_a_duration_means_a_time_ago(text: str, ago: timedelta) -> None:
    assert parse_time(text, NOW) == NOW - ago


def test_a_time_has_the_time_zone_it_names_or_this_machine_s() -> None:
    assert parse_time("2026-11-30T18:00+01:00") == datetime(2026, 11, 30, 17, tzinfo=UTC)
    assert parse_time("2026-11-30T18:00Z") == datetime(2026, 11, 30, 18, tzinfo=UTC)
    assert parse_time("2026-11-30") == datetime(2026, 11, 30).astimezone(UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "7", "-7d", "7x", "999999w", "2026-13-01"])
def test_the_error_of_other_texts_says_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="24h"):
        parse_time(text, NOW)
