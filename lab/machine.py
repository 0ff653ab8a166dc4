"""What machine this is: enough to say where a result comes from, and nothing that names its owner."""

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil
from pydantic import BaseModel, ConfigDict


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
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        mount = root / "sys/fs/cgroup" / controllers
        for folder in _enclosing(mount, group):
            if not controllers:
                yield _quota(*_read(folder / "cpu.max").split())
            elif "cpu" in controllers.split(","):
                yield _quota(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _enclosing(mount: Path, group: str) -> Iterator[Path]:
    # A container may see its group's path as the host names it: folders that are missing here are skipped.
    inside = PurePosixPath(group.lstrip("/"))
    yield from (mount / folder for folder in (inside, *inside.parents))


def _quota(quota_us: str = "", period_us: str = "") -> float | None:
    if not quota_us.strip().isdigit() or not period_us.strip().isdigit():  # "max", -1, or no such file
        return None
    return int(quota_us) / int(period_us)


def pin(slot: int) -> None:
    """Bind the calling thread, and those it starts, to one of the CPUs it may use, which take turns."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[slot % len(cpus)]})


_HYPERVISORS = {
    "amazon ec2": "amazon",
    "google": "google",
    "kvm": "kvm",
    "qemu": "qemu",
    "vmware": "vmware",
    "virtualbox": "virtualbox",
    "innotek": "virtualbox",
    "xen": "xen",
    "microsoft corporation virtual": "hyper-v",
    "parallels": "parallels",
    "bochs": "bochs",
}
"""What the firmware calls itself, in small letters, and what people call it."""

_CONTAINERS = {
    "kubepods": "kubernetes",
    "docker": "docker",
    "libpod": "podman",
    "lxc": "lxc",
    "containerd": "containerd",
}
"""What the first process's cgroup is named, and what keeps it."""


class Machine(BaseModel):
    """One machine, as a manifest keeps it; `quota_cpus` may be a fraction, and is None without a quota."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu_model: str
    architecture: str
    host_cpus: int
    affinity_cpus: int
    quota_cpus: float | None
    available_cpus: int
    memory_bytes: int
    kernel: str
    virtualisation: str
    container: str
    governor: str
    python: str

    def __str__(self) -> str:
        return f"{self.cpu_model}, {self.available_cpus} of {self.host_cpus} CPUs"


def describe(root: Path = Path("/")) -> Machine:
    """Describe this machine; `root` is where /proc and /sys are found."""
    return Machine(
        cpu_model=_cpu_model(root),
        architecture=platform.machine(),
        host_cpus=host_cpus(),
        affinity_cpus=affinity_cpus(),
        quota_cpus=quota_cpus(root),
        available_cpus=available_cpus(root),
        memory_bytes=psutil.virtual_memory().total,
        kernel=f"{platform.system()} {platform.release()}",
        virtualisation=_virtualisation(root),
        container=_container(root),
        governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )


def _cpu_model(root: Path) -> str:
    info = _cpuinfo(root)
    board = _read(root / "sys/firmware/devicetree/base/model")  # ARM's cpuinfo names no model, its board does
    return info.get("model name") or board or platform.processor() or "unknown"


def _cpuinfo(root: Path) -> dict[str, str]:
    """Return the lines of the first CPU."""
    first = _read(root / "proc/cpuinfo").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _virtualisation(root: Path) -> str:
    """Name what the machine runs on: by its traces, else by its firmware, else by the CPU's flag; or none."""
    if "microsoft" in _read(root / "proc/sys/kernel/osrelease").lower():
        return "wsl"
    flags = _cpuinfo(root).get("flags", "").split()
    if flags and "hypervisor" not in flags:  # a x86 guest has the flag; other CPUs have none to show
        return "none"
    if kind := _read(root / "sys/hypervisor/type"):
        return kind
    firmware = " ".join(
        _read(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name")
    ).lower()
    named = [hypervisor for mark, hypervisor in _HYPERVISORS.items() if mark in firmware]
    return named[0] if named else "unnamed hypervisor" if flags else "none"


def _container(root: Path) -> str:
    cgroup = _read(root / "proc/1/cgroup")
    named = [name for mark, name in _CONTAINERS.items() if mark in cgroup]
    if named:
        return named[0]
    if (root / ".dockerenv").exists():
        return "docker"
    return "podman" if (root / "run/.containerenv").exists() else "none"


def _read(path: Path) -> str:
    """Return a small file's text, or nothing where there is none or it may not be read."""
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""
