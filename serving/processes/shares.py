"""The share of one process in what a server of several processes may use."""

import os
from dataclasses import replace

from serving.settings import Settings
from serving.system.cpus import available_cpus, cgroup_quota

CPUS_PER_PROCESS = 4
"""CPUs for each process with `--processes auto`: about as many as one event loop can feed (docs/scaling.md)."""


def automatic_count() -> int:
    """One process for every CPUS_PER_PROCESS CPUs that this process may use, at least 1."""
    return max(1, available_cpus() // CPUS_PER_PROCESS)


def share_cpus(count: int) -> list[list[int]]:
    """The CPUs of each of `count` processes: adjacent ones, in shares that differ by at most one.

    With more processes than CPUs, several processes have the same one. All lists are empty where the processes may run
    on any CPU: a quota of CPU time says how many CPUs they may use together, but not which.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if cgroup_quota() is not None:
        return [[] for _ in range(count)]
    if count >= len(allowed):
        return [[allowed[number % len(allowed)]] for number in range(count)]
    return [allowed[len(allowed) * i // count : len(allowed) * (i + 1) // count] for i in range(count)]


def share_settings(settings: Settings, count: int) -> Settings:
    """The settings of one of `count` processes: limits are divided, so that they hold for all processes together.

    Raises:
        ValueError: if a process would have less of a limit than one request may need.
    """
    rows = settings.options.max_rows // count
    if rows < settings.max_views:
        raise ValueError(
            f"--max-views-in-flight {settings.options.max_rows} divided by --processes {count} is {rows}, but a "
            f"request may ask for {settings.max_views} views (--max-views); use fewer processes, or raise the limit"
        )
    quota = cgroup_quota()
    return replace(
        settings,
        reuse_port=True,
        options=replace(
            settings.options, max_rows=rows, cpu_limit=None if quota is None else max(1.0, available_cpus() / count)
        ),
        connections=replace(
            settings.connections, max_connections=max(1, settings.connections.max_connections // count)
        ),
        max_bytes_in_flight=max(1, settings.max_bytes_in_flight // count),
        observability=replace(settings.observability, endpoint=False),
    )
