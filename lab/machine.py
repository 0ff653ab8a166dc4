"""What machine this is: enough to say where a result comes from, but nothing that identifies its owner."""

import platform
import re
from pathlib import Path
from typing import Annotated

import psutil
from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BaseModel, ConfigDict

from lab.cpus import affinity_cpus, available_cpus, cpu_groups, host_cpus, quota_cpus
from lab.errors import UsageError
from lab.files import read_small

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
"""What the firmware calls itself, in lower case, and what people call it."""

_CONTAINERS = {
    "kubepods": "kubernetes",
    "docker": "docker",
    "libpod": "podman",
    "lxc": "lxc",
    "containerd": "containerd",
}
"""What the first process's cgroup is called, and which container runtime that means."""


Cpus = Annotated[int, Ge(1), Le(1_000_000)]
"""A number of CPUs that some machine may have."""


def checked_label(text: str) -> str:
    """Return what its owner calls a machine, such as rack-3; "" if it has no name.

    Raises UsageError for a text that is long, or not fit to be shown anywhere.
    """
    if text and not re.fullmatch(r"\w([\w .:@+()-]{0,38}[\w)])?", text):
        raise UsageError(
            f"a host label has at most 40 letters, digits, spaces and .:@+()_-, such as rack-3, got {text!r}"
        )
    return text


class Machine(BaseModel):
    """One machine, as a manifest keeps it; `quota_cpus` may be a fraction, and is None without a quota.

    `label` is what its owner calls it, "" if nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cpu_model: str
    architecture: str
    host_cpus: Cpus
    affinity_cpus: Cpus
    quota_cpus: Annotated[float, Gt(0)] | None
    available_cpus: Cpus
    memory_bytes: Annotated[int, Ge(0)]
    kernel: str
    virtualisation: str
    container: str
    governor: str
    python: str
    label: Annotated[str, AfterValidator(checked_label)] = ""

    def __str__(self) -> str:
        about = f"{self.cpu_model}, {self.available_cpus} of {self.host_cpus} CPUs"
        return f"{self.label} ({about})" if self.label else about


def describe(root: Path = Path("/"), label: str = "") -> Machine:
    """Describe this machine, called `label` by its owner; `root` is where /proc and /sys are found."""
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
        governor=read_small(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        label=label,
    )


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that new processes can use here: of the system, and of what control groups allow."""
    free = [psutil.virtual_memory().available]
    for group in cpu_groups(root):
        most, used = (read_small(group / f"memory.{name}") for name in ("max", "current"))
        if most.isdecimal() and used.isdecimal():
            free.append(int(most) - int(used))
    return max(0, min(free))


def _cpu_model(root: Path) -> str:
    info = _cpuinfo(root)
    board = read_small(
        root / "sys/firmware/devicetree/base/model"
    )  # ARM's cpuinfo names no model, its board does
    return info.get("model name") or board or platform.processor() or "unknown"


def _cpuinfo(root: Path) -> dict[str, str]:
    """Return the lines of the first CPU."""
    first = read_small(root / "proc/cpuinfo").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _virtualisation(root: Path) -> str:
    """Name the hypervisor: by its traces, else by its firmware, else by the CPU's flag; or none."""
    if "microsoft" in read_small(root / "proc/sys/kernel/osrelease").lower():
        return "wsl"
    flags = _cpuinfo(root).get("flags", "").split()
    if flags and "hypervisor" not in flags:  # an x86 guest has the flag; other CPUs show no flags
        return "none"
    if kind := read_small(root / "sys/hypervisor/type"):
        return kind
    firmware = " ".join(
        read_small(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name")
    ).lower()
    named = [hypervisor for mark, hypervisor in _HYPERVISORS.items() if mark in firmware]
    return named[0] if named else "unnamed hypervisor" if flags else "none"


def _container(root: Path) -> str:
    cgroup = read_small(root / "proc/1/cgroup")
    named = [name for mark, name in _CONTAINERS.items() if mark in cgroup]
    if named:
        return named[0]
    if (root / ".dockerenv").exists():
        return "docker"
    return "podman" if (root / "run/.containerenv").exists() else "none"
