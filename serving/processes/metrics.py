"""The metrics of all processes in one scrape.

Each process's series get the label `process`, so that counters keep their meaning when one process restarts: their sum
would fall, which Prometheus takes for a restart of all.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

LABEL = "process"

Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]
"""Name, help, type, and samples of name, labels and value."""


def to_families(registry: CollectorRegistry) -> list[Family]:
    """The metrics of one process, as they travel to the supervisor."""
    return [
        (
            metric.name,
            metric.documentation,
            metric.type,
            [(each.name, each.labels, each.value) for each in metric.samples],
        )
        for metric in registry.collect()
    ]


def merge(by_process: Mapping[int, Iterable[Family]]) -> list[Metric]:
    """The metrics of all processes, with the number of the process as a label."""
    merged: dict[str, Metric] = {}
    for process, families in sorted(by_process.items()):
        for name, text, kind, samples in families:
            metric = merged.setdefault(name, Metric(name, text, kind))
            for sample, labels, value in samples:
                metric.add_sample(sample, {LABEL: str(process), **labels}, value)
    return list(merged.values())


class ProcessesCollector(Collector):
    """Collects from all processes when it is scraped, in the thread of the scrape.

    Args:
        loop: the supervisor's.
        collect: asks every process for its metrics; those that do not answer are absent.
        restarts: returns how often each process was restarted, by its number.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        collect: Callable[[], Coroutine[Any, Any, Mapping[int, Any]]],
        restarts: Callable[[], Mapping[int, int]],
    ) -> None:
        self._loop = loop
        self._collect = collect
        self._restarts = restarts

    def collect(self) -> Iterable[Metric]:
        """Ask all processes."""
        found = asyncio.run_coroutine_threadsafe(self._collect(), self._loop).result()
        up = GaugeMetricFamily("pawserve_process_up", "1 for each process that serves, 0 otherwise.", labels=[LABEL])
        restarts = CounterMetricFamily(
            "pawserve_process_restarts", "How often the process ended and was started again.", labels=[LABEL]
        )
        for process, count in self._restarts().items():
            up.add_metric([str(process)], process in found)
            restarts.add_metric([str(process)], count)
        return [up, restarts, *merge(found)]

    def describe(self) -> Iterable[Metric]:
        """Return no metrics: registration would otherwise query every process."""
        return []
