"""How many CPUs a server can use here: by the host, by affinity, and by the quota of a cgroup."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lab.files import read_small


def host_cpus() -> int:
    """Return the number of logical CPUs of the host, whether or not this process may use them."""
    return os.cpu_count() or 1


def affinity_cpus() -> int:
    """Return how many CPUs this process may be scheduled on; the host's where affinity is unknown (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else host_cpus()


def quota_cpus(root: Path = Path("/")) -> float | None:
    """Return the CPUs that the cgroup's quota is worth, a fraction, or None where there is no quota.

    The quotas of all enclosing groups hold, so the smallest counts. `root` is where `proc` and `sys` are.
    """
    quotas = map(quota_of, cpu_groups(root))
    return min((quota for quota in quotas if quota is not None), default=None)


def available_cpus(root: Path = Path("/")) -> int:
    """Return the CPUs a server can use here: the smallest of host, affinity and quota, rounded up."""
    counts: list[float] = [host_cpus(), affinity_cpus()]
    quota = quota_cpus(root)
    return max(1, math.ceil(min([*counts, quota] if quota is not None else counts)))


def cpu_groups(root: Path = Path("/"), pid: int | str = "self") -> Iterator[Path]:
    """Yield the folders of the control groups that may limit a process's CPUs, the innermost first.

    They are of version 1 or 2 of cgroups. `root` is where `proc` and `sys` are.
    """
    for line in read_small(root / f"proc/{pid}/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            yield from _enclosing(root / "sys/fs/cgroup" / controllers, group)


def quota_of(group: Path) -> float | None:
    """Return the CPUs that the quota of one control group is worth, or None where it has none."""
    if both := read_small(group / "cpu.max"):
        return _quota(*both.split())
    return _quota(read_small(group / "cpu.cfs_quota_us"), read_small(group / "cpu.cfs_period_us"))


def _enclosing(mount: Path, group: str) -> Iterator[Path]:
    # A container may see its group's path as the host names it: folders that are missing here are skipped.
    inside = PurePosixPath(group.lstrip("/"))
    folders = (mount / folder for folder in (inside, *inside.parents))
    yield from (folder for folder in folders if folder.is_dir())


def _quota(quota_us: str = "", period_us: str = "") -> float | None:
    if not quota_us.strip().isdigit() or not period_us.strip().isdigit():  # "max", -1, or no such file
        return None
    return int(quota_us) / int(period_us)


def pin(index: int) -> None:
    """Bind the calling thread, and those it starts, to one of the CPUs it may use, which take turns."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[index % len(cpus)]})
