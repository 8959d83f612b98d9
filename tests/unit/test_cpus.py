"""The number of CPUs a process may use, from files as Linux writes them."""

import os
from pathlib import Path

import pytest
import torch

from serving.system.cpus import available_cpus, cgroup_quota
from tests.support.cgroups import V1_MOUNT, V2_MOUNT, machine
from training import hardware


def test_a_v2_quota_is_read(tmp_path: Path) -> None:
    root = machine(tmp_path, V2_MOUNT, "0::/app\n", {"sys/fs/cgroup/app/cpu.max": "150000 100000\n"})
    assert cgroup_quota(root) == 1.5


def test_a_v1_quota_is_read(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us": "100000\n",
    }
    root = machine(tmp_path, V1_MOUNT, "5:memory:/app\n4:cpu,cpuacct:/app\n", files)
    assert cgroup_quota(root) == 3


def test_the_smallest_quota_of_a_group_and_its_parents_counts(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/pod/cpu.max": "200000 100000",
        "sys/fs/cgroup/pod/container/cpu.max": "max 100000",
        "sys/fs/cgroup/pod/container/process/cpu.max": "400000 100000",
    }
    assert cgroup_quota(machine(tmp_path, V2_MOUNT, "0::/pod/container/process\n", files)) == 2


def test_a_container_sees_its_own_group_at_the_mount(tmp_path: Path) -> None:
    """The mount begins at the container's group, or the process's group is named as the host sees it."""
    mount = V2_MOUNT.replace("0:26 / ", "0:26 /docker/abc ")
    root = machine(tmp_path, mount, "0::/docker/abc\n", {"sys/fs/cgroup/cpu.max": "250000 100000\n"})
    assert cgroup_quota(root) == 2.5
    (root / "proc/self/cgroup").write_text("0::/elsewhere\n")
    assert cgroup_quota(root) == 2.5


def test_v1_and_v2_quotas_are_read_together(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "50000",
    }
    unified = V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    root = machine(tmp_path, V1_MOUNT + unified, "4:cpu,cpuacct:/\n0::/\n", files)
    assert cgroup_quota(root) == 4


@pytest.mark.parametrize("text", ["max 100000\n", "", "garbage", "-1 100000", "100000 0", "100000"])
def test_unreadable_quotas_are_ignored(tmp_path: Path, text: str) -> None:
    assert cgroup_quota(machine(tmp_path, V2_MOUNT, "0::/\n", {"sys/fs/cgroup/cpu.max": text})) is None


def test_a_v1_group_without_a_quota(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    assert cgroup_quota(machine(tmp_path, V1_MOUNT, "4:cpu,cpuacct:/\n", files)) is None


def test_systems_without_these_files_have_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "cpus"), [("50000", 1), ("100000", 1), ("250000", 2), ("9900000", 8), ("max", 8)])
def test_the_quota_and_the_affinity_mask_both_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    root = machine(tmp_path, V2_MOUNT, "0::/\n", {"sys/fs/cgroup/cpu.max": f"{quota} 100000\n"})
    assert available_cpus(root) == cpus


def test_a_limit_reserves_fewer_cpus_and_never_adds_any() -> None:
    before = available_cpus()
    assert available_cpus(limit=0.5) == 1
    assert available_cpus(limit=1000.0) == before


@pytest.mark.parametrize(("processes", "allowed"), [("1", 3), ("2", 1), ("9", 1)])
def test_training_uses_no_more_threads_than_the_quota_allows(
    monkeypatch: pytest.MonkeyPatch, processes: str, allowed: int
) -> None:
    monkeypatch.setattr(hardware, "available_cpus", lambda: 3)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    with hardware.threads(16):
        hardware.choose_hardware()
        assert torch.get_num_threads() == allowed
    with hardware.threads(1):  # as OMP_NUM_THREADS sets them
        hardware.choose_hardware()
        assert torch.get_num_threads() == 1
