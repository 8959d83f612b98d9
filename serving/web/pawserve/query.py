"""Query parameters: parsed once, and every unknown or repeated one is an error."""

import re
from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp
from starlette.requests import Request

from serving.api.errors import ApiError, invalid

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s?")
_WHOLE = re.compile(r"-?\d{1,9}")
_SHOWN = 60


class Query:
    """The query parameters of a request.

    Args:
        request: the request.
        known: the names that the endpoint has.

    Raises:
        ApiError: for a name that is unknown or given twice.
    """

    def __init__(self, request: Request, known: Iterable[str]) -> None:
        self._values: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            if name not in known:
                choices = ", ".join(known)
                raise _invalid(
                    name[:_SHOWN], f"query parameter {name[:_SHOWN]!r} is not known; use {choices or 'none'}"
                )
            if name in self._values:
                raise _invalid(name, f"query parameter {name} is given twice; give it once")
            self._values[name] = value

    def text(self, name: str) -> str:
        """The value; "" if it is not given."""
        return self._values.get(name, "")

    def whole(self, name: str) -> int | None:
        """A whole number; None if it is not given."""
        if not (text := self.text(name)):
            return None
        if not _WHOLE.fullmatch(text):
            raise _invalid(name, f"{name} is {text[:_SHOWN]!r}; it must be a whole number")
        return int(text)

    def boolean(self, name: str) -> bool:
        """`true` or `false`; False if it is not given."""
        text = self.text(name)
        if text not in ("", "true", "false", "1", "0"):
            raise _invalid(name, f"{name} is {text[:_SHOWN]!r}; it must be true or false")
        return text in ("true", "1")

    def seconds(self, name: str) -> float | None:
        """A duration such as 1.5s, in seconds; None if it is not given."""
        if not (text := self.text(name)):
            return None
        matched = _DURATION.fullmatch(text)
        if not matched:
            raise _invalid(name, f"{name} is {text[:_SHOWN]!r}; it must be seconds, such as 1.5s")
        return float(matched[1])

    def time(self, name: str) -> Timestamp | None:
        """A time in RFC 3339; None if it is not given."""
        if not (text := self.text(name)):
            return None
        time = Timestamp()
        try:
            time.FromJsonString(text.replace(" ", "+"))  # a + in a query is a space, unless it is written as %2B
        except ValueError:
            message = f"{name} is {text[:_SHOWN]!r}; it must be a time such as 2026-11-01T00:00:00Z"
            raise invalid("TIME_WINDOW_INVALID", message, name) from None
        return time


def _invalid(name: str, message: str) -> ApiError:
    return invalid("PARAMETER_INVALID", message, name)
