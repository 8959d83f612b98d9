"""Time windows of requests: `start_time` and `end_time`."""

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from serving.api.errors import invalid
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.store import Window
from serving.system.times import format_time

_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799  # the years 1 to 9999, as in timestamp.proto


def to_window(request: pb.GetStatisticsRequest | pb.GetComparisonRequest) -> Window:
    """The window that a request asks for.

    Raises:
        ApiError: if a time is invalid, or the window does not end after it begins.
    """
    start_ms = _milliseconds(request, "start_time")
    end_ms = _milliseconds(request, "end_time")
    if start_ms is not None and end_ms is not None and start_ms >= end_ms:
        message = f"start_time {format_time(start_ms)} must be before end_time {format_time(end_ms)}"
        raise invalid("TIME_WINDOW_INVALID", message, "end_time")
    return Window(start_ms, end_ms)


def _milliseconds(request: Message, field: str) -> int | None:
    """A time in Unix milliseconds, rounded up, since the times of predictions are whole milliseconds."""
    if not request.HasField(field):
        return None
    time: Timestamp = getattr(request, field)
    if not (_FIRST_SECOND <= time.seconds <= _LAST_SECOND and 0 <= time.nanos < 10**9):
        message = (
            f"{field} has {time.seconds} seconds and {time.nanos} nanos; nanos must be 0 to 999,999,999, and the time "
            "in the years 1 to 9999"
        )
        raise invalid("TIME_WINDOW_INVALID", message, field)
    return min(int(time.seconds) * 1000 - (-int(time.nanos) // 1_000_000), _LAST_SECOND * 1000 + 999)
