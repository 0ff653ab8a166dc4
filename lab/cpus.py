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
    quotas = [quota for quota in _quotas(root) if quota is not None]
    return min(quotas, default=None)


def available_cpus(root: Path = Path("/")) -> int:
    """Return the CPUs a server can use here: the smallest of host, affinity and quota, rounded up."""
    counts: list[float] = [host_cpus(), affinity_cpus()]
    quota = quota_cpus(root)
    return max(1, math.ceil(min([*counts, quota] if quota is not None else counts)))


def _quotas(root: Path) -> Iterator[float | None]:
    for line in read_small(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        mount = root / "sys/fs/cgroup" / controllers
        for folder in _enclosing(mount, group):
            if not controllers:
                yield _quota(*read_small(folder / "cpu.max").split())
            elif "cpu" in controllers.split(","):
                yield _quota(
                    read_small(folder / "cpu.cfs_quota_us"), read_small(folder / "cpu.cfs_period_us")
                )


def _enclosing(mount: Path, group: str) -> Iterator[Path]:
    # A container may see its group's path as the host names it: folders that are missing here are skipped.
    inside = PurePosixPath(group.lstrip("/"))
    yield from (mount / folder for folder in (inside, *inside.parents))


def _quota(quota_us: str = "", period_us: str = "") -> float | None:
    if not quota_us.strip().isdigit() or not period_us.strip().isdigit():  # "max", -1, or no such file
        return None
    return int(quota_us) / int(period_us)


def pin(index: int) -> None:
    """Bind the calling thread, and those it starts, to one of the CPUs it may use, which take turns."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[index % len(cpus)]})
