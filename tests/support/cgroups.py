"""Files of Linux's control groups, as a process reads them."""

from pathlib import Path

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "33 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
OTHER_MOUNTS = (
    "23 28 0:21 / /proc rw,nosuid shared:14 - proc proc rw\n"
    "34 25 0:29 / /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory\n"
)


def machine(root: Path, mounts: str, group: str, files: dict[str, str]) -> Path:
    """Write a root folder with a process's mounts, its cgroups and the cgroups' files."""
    for name, text in {"proc/self/mountinfo": OTHER_MOUNTS + mounts, "proc/self/cgroup": group, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
