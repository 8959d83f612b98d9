"""Times: parsing what people write, and the time of day."""

import re
import time
from datetime import UTC, datetime, timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_time(text: str, now: datetime | None = None) -> datetime:
    """Parse a time.

    Args:
        text: "90m", "24h", "7d" or "2w" for a time ago; or an ISO 8601 date and time, in this machine's time zone
            unless it names one.
        now: the time to count back from; the current time by default.

    Raises:
        ValueError: if it is neither, or not in the years 1 to 9999.
    """
    now = now or datetime.now(UTC)
    try:
        if ago := re.fullmatch(r"(\d{1,6})([smhdw])", text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a time; write 30m, 24h, 7d, 2w, 2026-11-30 or 2026-11-30T18:00+01:00"
        ) from None


def format_time(time_ms: int) -> str:
    """Unix milliseconds as ISO 8601 in UTC: 2026-11-30T18:00:00.000Z."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_ms() -> int:
    """The time of day in Unix milliseconds. It may jump."""
    return time.time_ns() // 1_000_000
