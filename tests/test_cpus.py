"""CPU counts: the host's, affinity's, and cgroup quotas as the files of a fake system say them."""

import os
from pathlib import Path

import pytest

from lab.cpus import affinity_cpus, available_cpus, host_cpus, quota_cpus


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Make the files of a system: the groups of this process, and files below the groups' mount."""
    below = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": groups, **below}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_here_there_is_at_least_one_and_no_more_than_the_host_has() -> None:
    assert 1 <= available_cpus() <= affinity_cpus() <= host_cpus()


def test_no_cgroups_no_quota(tmp_path: Path) -> None:
    assert quota_cpus(tmp_path) is None


OWN = "cpu,cpuacct/docker/abc/cpu.cfs_"
HOSTS = "cpu,cpuacct/cpu.cfs_"

QUOTAS: dict[str, tuple[str, dict[str, str], float | None]] = {
    "v2 without a limit": ("0::/\n", {"cpu.max": "max 100000\n"}, None),
    "v2 is a fraction": ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    "v2, the smallest of all enclosing groups": (
        "0::/user/shell\n",
        {"cpu.max": "max 100000", "user/cpu.max": "50000 100000", "user/shell/cpu.max": "200000 100000"},
        0.5,
    ),
    "v1 is quota over period": (
        "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
        {OWN + "quota_us": "250000\n", OWN + "period_us": "100000\n"},
        2.5,
    ),
    "v1 inside a container whose group has the host's name": (
        "4:cpu,cpuacct:/docker/abc\n",
        {HOSTS + "quota_us": "50000", HOSTS + "period_us": "100000"},
        0.5,
    ),
    "v1 without a limit": (
        "4:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        None,
    ),
    "a malformed file": ("0::/\n", {"cpu.max": ""}, None),
}


@pytest.mark.parametrize(("groups", "files", "cpus"), QUOTAS.values(), ids=QUOTAS)
def test_a_quota_is_read_from_the_groups(
    groups: str, files: dict[str, str], cpus: float | None, tmp_path: Path
) -> None:
    assert quota_cpus(system(tmp_path, groups, files)) == cpus


@pytest.mark.parametrize(
    ("quota", "cpus"), [("10000 100000", 1), ("100000 100000", 1), ("9900000 100000", None)]
)
def test_workers_are_the_quota_rounded_up_but_no_more_than_the_cpus(
    tmp_path: Path, quota: str, cpus: int | None
) -> None:
    assert available_cpus(system(tmp_path, "0::/\n", {"cpu.max": quota})) == (cpus or affinity_cpus())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_affinity_counts() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert affinity_cpus() == available_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
