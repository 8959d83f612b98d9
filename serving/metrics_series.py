"""Metrics by model version in; the same without the series of versions that nobody will count in again.

With a model that is replaced daily, what is told to Prometheus would otherwise grow for ever. A series stays while its
version is served or drains, and for KEPT_S after that and after its last count (labels of old predictions come late):
long enough for several scrapes, and for the last increase to be seen. So no counter falls while its version is served;
one that comes back later begins at 0, as after a restart, which `rate` and `increase` allow for.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

KEPT_S = 600.0

Key = tuple[str, str]
"""Name and version, as the labels have them."""


class VersionSeries(Collector):
    """Forgets series of versions, when it is scraped and when a version comes. Any thread may call it."""

    def __init__(self) -> None:
        self.families: Sequence[MetricWrapperBase] = ()
        """Those that have labels model and version, and others perhaps."""
        self._seen: dict[Key, float] = {}  # time.monotonic() when it was last served or counted in
        self._lock = Lock()
        self.served: Callable[[], Iterable[Key]] = tuple
        """Says which versions are served, or still draining."""

    def use(self, key: Key) -> None:
        """Note that a version will be counted in: its series stay."""
        with self._lock:
            self._seen[key] = time.monotonic()
        self._forget()

    def collect(self) -> Iterable[Metric]:
        """Nothing of its own."""
        self._forget()
        return ()

    def _forget(self) -> None:
        served = self.served()
        now = time.monotonic()
        with self._lock:
            self._seen.update(dict.fromkeys(served, now))
            for key in [key for key, seen in self._seen.items() if now - seen > KEPT_S]:
                del self._seen[key]
                for family in self.families:
                    family.remove_by_labels(dict(zip(("model", "version"), key, strict=True)))
