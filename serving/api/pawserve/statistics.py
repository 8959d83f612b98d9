"""GetStatistics and WatchStatistics of `pawserve.v1.Classifier`."""

import asyncio
from collections.abc import Awaitable, Callable

from google.protobuf.duration_pb2 import Duration

from serving.api.errors import ApiError, Code, invalid, to_api_error
from serving.api.lookup import parse_model_name
from serving.api.pawserve.drift import to_drift
from serving.api.pawserve.rates import to_model_statistics, to_rate
from serving.api.pawserve.windows import to_window
from serving.bundle.model_version import ModelVersion
from serving.models.drift import Drift
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.calibration import Bin, expected_calibration_error
from serving.statistics.changes import StatisticsFeed
from serving.statistics.store import StatisticsStore, VersionStatistics, WindowExpired

MAX_WATCHERS = 64
MIN_INTERVAL_S = 0.1
MAX_INTERVAL_S = 3600.0
DEFAULT_INTERVAL_S = 1.0
WATCHERS_RETRY_S = 5.0


class StatisticsService:
    """Reads the statistics for calls.

    Args:
        store: where they are kept.
        find: raises ApiError unless a version with the resource name is served.
        drift_of: returns the drift of a version; None if this process does not serve it.
    """

    def __init__(
        self,
        store: StatisticsStore,
        find: Callable[[str], object],
        drift_of: Callable[[ModelVersion], Drift | None],
    ) -> None:
        self._store = store
        self._find = find
        self._drift_of = drift_of
        self._feed = StatisticsFeed(store)
        self._watchers = 0

    def stop(self) -> None:
        """End the calls of watchers, now and in future, since they would delay a shutdown."""
        self._feed.stop()

    async def get(self, request: pb.GetStatisticsRequest) -> pb.GetStatisticsResponse:
        """The current statistics, of a time window if one is given."""
        name, version = parse_model_name(request.model) if request.model else (None, None)
        window = to_window(request)
        try:
            statistics = await asyncio.to_thread(self._store.read, name, version, window)
        except WindowExpired as error:
            field = "start_time" if request.HasField("start_time") else "end_time"
            raise to_api_error(error, field) from error
        if name is not None and not statistics and not await asyncio.to_thread(self._store.read, name, version):
            self._find(request.model)  # a served version without predictions has no statistics yet, which is no error
        return pb.GetStatisticsResponse(models=map(self._to_message, statistics))

    async def watch(
        self, request: pb.WatchStatisticsRequest, write: Callable[[pb.WatchStatisticsResponse], Awaitable[object]]
    ) -> None:
        """Write the statistics now and whenever they change, until the client goes or the server stops."""
        name, version = parse_model_name(request.model) if request.model else (None, None)
        interval_s = to_interval_s(request)
        if self._watchers >= MAX_WATCHERS:
            message = f"{MAX_WATCHERS} calls watch the statistics already; poll GetStatistics instead"
            raise ApiError(Code.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS", message, retry_after_s=WATCHERS_RETRY_S)
        self._watchers += 1
        number, sent = 0, None
        try:
            while newer := await self._feed.newer(number):
                number, statistics = newer
                chosen = [each for each in statistics if each.version.matches(name, version)]
                if sent is None and name is not None and not chosen:
                    self._find(request.model)
                if chosen != sent:  # a shutdown waits for it, since gRPC ends no call during a write
                    await write(pb.WatchStatisticsResponse(models=map(self._to_message, chosen)))
                    sent = chosen
                if await self._feed.stopped_within(interval_s):
                    return
        finally:  # the client has gone, the server stops, or the statistics cannot be read
            self._watchers -= 1

    def _to_message(self, statistics: VersionStatistics) -> pb.ModelStatistics:
        return to_statistics(statistics, self._drift_of(statistics.version))


def to_interval_s(request: pb.WatchStatisticsRequest) -> float:
    """The shortest time between two responses, in seconds.

    Raises:
        ApiError: if it is not 0.1 s to 1 h.
    """
    if not request.HasField("min_interval"):
        return DEFAULT_INTERVAL_S
    duration: Duration = request.min_interval
    interval_s = duration.seconds + duration.nanos / 1e9
    if not MIN_INTERVAL_S <= interval_s <= MAX_INTERVAL_S:
        message = f"min_interval is {interval_s:g} s; {MIN_INTERVAL_S:g} to {MAX_INTERVAL_S:g} s are allowed"
        raise invalid("INTERVAL_OUT_OF_RANGE", message, "min_interval")
    return interval_s


def to_statistics(statistics: VersionStatistics, drift: Drift | None = None) -> pb.ModelStatistics:
    """The statistics of one version."""
    message = to_model_statistics(statistics.version.resource, statistics.confusion)
    message.predictions = statistics.predictions
    message.unlabelled = statistics.predictions - message.labels
    message.calibration_bins.extend(map(_to_calibration_bin, statistics.calibration))
    if (error := expected_calibration_error(statistics.calibration)) is not None:
        message.expected_calibration_error = error
    if statistics.last_label_ms is not None:
        message.last_label_time.FromMilliseconds(statistics.last_label_ms)
    if drift is not None:
        message.drift.CopyFrom(to_drift(drift, statistics.confusion.classes))
    return message


def _to_calibration_bin(each: Bin) -> pb.CalibrationBin:
    return pb.CalibrationBin(
        lower=each.lower,
        upper=each.upper,
        mean_probability=each.mean_probability,
        accuracy=to_rate(each.accuracy),
    )
