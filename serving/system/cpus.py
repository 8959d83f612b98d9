"""How many CPUs this process may use, binding threads to them, and the lowest priority.

A container often may use fewer CPUs than the machine has. Its cgroup quota says so, but neither `os.cpu_count` nor ONNX
Runtime reads it: one thread for each of the machine's cores then stalls on the quota.
"""

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

MAX_NICE = 19
"""The lowest priority of nice(2)."""


def available_cpus(root: Path = Path("/"), *, limit: float | None = None) -> int:
    """CPUs that this process may use: the least of the affinity mask, the cgroup quota and a limit; at least 1.

    A quota of 2.5 CPUs counts as 2: a third thread would be stopped for half of its time.

    Args:
        root: where /proc and the cgroup file systems are.
        limit: CPUs that a scheduler has reserved for this process without enforcing it; None for no limit.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [each for each in (cgroup_quota(root), limit) if each is not None]
    return max(1, min(allowed, *map(int, limits))) if limits else allowed


def bindable_cpus(root: Path = Path("/"), *, limit: float | None = None) -> list[int]:
    """The CPUs that threads of this process may be bound to; none if the process may not use all of them all the time.

    The list begins with a different CPU in each process, so that servers on one host use different ones first.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    allowed = sorted(os.sched_getaffinity(0))
    if available_cpus(root, limit=limit) < len(allowed):
        return []
    first = os.getpid() % len(allowed)
    return allowed[first:] + allowed[:first]


def set_thread_affinity(cpus: Collection[int]) -> None:
    """Let the calling thread run on these CPUs only; keep its affinity if this process may use none of them."""
    with suppress(OSError):
        os.sched_setaffinity(0, cpus)


def lower_priority(thread: int) -> None:
    """Let a thread run only while no other thread wants its CPU; for good, since raising it again needs a privilege.

    On Linux that is SCHED_IDLE, sched(7), or the highest nice value if that is not permitted. Elsewhere nothing is
    changed.

    Args:
        thread: its number in the system; a process's number is that of its first thread.
    """
    if sys.platform != "linux":  # priorities of threads are a matter of Linux
        return
    try:
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, MAX_NICE)


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """The smallest CPU quota of this process's cgroup and its parents, in CPUs; None without one.

    Reads cgroup v1 (cpu.cfs_quota_us and cpu.cfs_period_us), v2 (cpu.max), and both at once.
    """
    quotas = [quota for folder in _cgroup_folders(root) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """The folders of this process's CPU cgroups and of those above them, where they are mounted."""
    groups = _groups_of_this_process(root)
    for line in _lines(root / "proc/self/mountinfo"):
        # proc_pid_mountinfo(5): ID parent major:minor root mount-point options [tags...] - type source super-options
        before, _, after = line.partition(" - ")
        mount, kind = before.split(), after.split()
        if len(mount) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            group = groups.get("")
        elif kind[0] == "cgroup" and "cpu" in kind[2].split(","):
            group = groups.get("cpu")
        else:
            continue
        folder = root / mount[4].lstrip("/")
        yield folder
        # In a container the mount may begin at the container's own group, or the group may lie outside of it.
        if group is not None and group.is_relative_to(mount[3]):
            for part in group.relative_to(mount[3]).parts:
                folder = folder / part
                yield folder


def _groups_of_this_process(root: Path) -> dict[str, PurePosixPath]:
    """Group by controller, from /proc/self/cgroup; the controller of v2 is ''."""
    groups = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group = (line.split(":", 2) + ["", ""])[:3]
        for controller in controllers.split(","):
            groups[controller] = PurePosixPath(group)
    return groups


def _quota_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        # "max" in v2 and -1 in v1 mean that there is no quota
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
