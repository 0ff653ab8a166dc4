"""CPU counts: the host's, affinity's, and cgroup quotas as the files of a fake system say them."""

import os
from pathlib import Path

import pytest

from lab.cpus import affinity_cpus, available_cpus, host_cpus, quota_cpus


def system(root: Path, groups: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".").replace("_COMMA_", ",")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_here_there_is_at_least_one_and_no_more_than_the_host_has() -> None:
    assert 1 <= available_cpus() <= affinity_cpus() <= host_cpus()


def test_no_cgroups_no_quota(tmp_path: Path) -> None:
    assert quota_cpus(tmp_path) is None


def test_v2_without_a_limit(tmp_path: Path) -> None:
    assert quota_cpus(system(tmp_path, "0::/\n", cpu_DOT_max="max 100000\n")) is None


def test_v2_is_a_fraction(tmp_path: Path) -> None:
    assert quota_cpus(system(tmp_path, "0::/\n", cpu_DOT_max="150000 100000\n")) == 1.5


def test_v2_the_smallest_of_all_enclosing_groups_holds(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        "0::/user/shell\n",
        cpu_DOT_max="max 100000",
        user__cpu_DOT_max="50000 100000",
        user__shell__cpu_DOT_max="200000 100000",
    )
    assert quota_cpus(root) == 0.5


def test_v1_quota_over_period(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
        cpu_COMMA_cpuacct__docker__abc__cpu_DOT_cfs_quota_us="250000\n",
        cpu_COMMA_cpuacct__docker__abc__cpu_DOT_cfs_period_us="100000\n",
    )
    assert quota_cpus(root) == 2.5


def test_v1_inside_a_container_whose_group_has_the_hosts_name(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        "4:cpu,cpuacct:/docker/abc\n",
        cpu_COMMA_cpuacct__cpu_DOT_cfs_quota_us="50000",
        cpu_COMMA_cpuacct__cpu_DOT_cfs_period_us="100000",
    )
    assert quota_cpus(root) == 0.5


def test_v1_without_a_limit(tmp_path: Path) -> None:
    root = system(tmp_path, "4:cpu:/\n", cpu__cpu_DOT_cfs_quota_us="-1", cpu__cpu_DOT_cfs_period_us="100000")
    assert quota_cpus(root) is None


def test_a_malformed_file_is_no_quota(tmp_path: Path) -> None:
    assert quota_cpus(system(tmp_path, "0::/\n", cpu_DOT_max="")) is None


@pytest.mark.parametrize(
    ("quota", "cpus"), [("10000 100000", 1), ("100000 100000", 1), ("9900000 100000", None)]
)
def test_workers_are_the_quota_rounded_up_but_no_more_than_the_cpus(
    tmp_path: Path, quota: str, cpus: int | None
) -> None:
    assert available_cpus(system(tmp_path, "0::/\n", cpu_DOT_max=quota)) == (cpus or affinity_cpus())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_affinity_counts() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert affinity_cpus() == available_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
