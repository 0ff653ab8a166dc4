"""CPU counts: by host, affinity and quota, as each API says, and how many loops run at once."""

import importlib
import os
from pathlib import Path

import pytest

from lab import cpus
from lab.cpus import Said, affinity_cpus, all_said, available_cpus, host_cpus, quota_cpus, run_at_once
from lab.errors import LabError


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


def said() -> dict[str, Said]:
    return {one.api: one for one in all_said()}


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave only the programs of an empty folder to be found; return it."""
    monkeypatch.setattr(
        cpus, "find", lambda name: str(tmp_path / name) if (tmp_path / name).exists() else None
    )
    return tmp_path


def test_every_api_that_is_here_is_asked(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(alone, "node", "echo 7")
    program(alone, "nproc", "echo 5")
    (alone / "loky.py").write_text("def cpu_count(): return 3")
    monkeypatch.syspath_prepend(alone)
    importlib.invalidate_caches()
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 6, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr("lab.cpus.quota_cpus", lambda: 1.5)
    found = {api: one.cpus for api, one in said().items()}
    assert found == {
        "Python os.cpu_count()": 64,
        "Python os.process_cpu_count()": 6,
        "affinity": 4,
        "cgroup quota": 1.5,
        "loky.cpu_count()": 3,
        "Node os.availableParallelism()": 7,
        "nproc": 5,
    }


def test_what_is_not_here_or_fails_is_said(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(alone, "nproc", "exit 3")
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr("lab.cpus.quota_cpus", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    found = said()
    assert found["cgroup quota"] == Said("cgroup quota", None, "no quota")
    assert found["Python os.process_cpu_count()"].because == "from Python 3.13 on"
    assert found["loky.cpu_count()"].because == "not installed"
    assert found["Node os.availableParallelism()"].because == "not installed"
    assert found["nproc"].because.startswith("failed: ")
    assert found["nproc"].cpus is None


def test_loops_run_at_once_on_no_more_cpus_than_there_are_loops() -> None:
    assert 0 < run_at_once(1, 0.1) <= 1.1


def test_a_loop_that_ends_early_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_LOOP", "")
    with pytest.raises(LabError, match="a loop ended early"):
        run_at_once(2, 0.1)
