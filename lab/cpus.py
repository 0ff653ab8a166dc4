"""How many CPUs a server can use here, how many each API says there are, and how many loops run at once."""

import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab.errors import LabError, one_line
from lab.files import read_small
from lab.programs import find


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


def give_way() -> None:
    """Let the calling thread, when it wakes, wait its turn where another computes, not interrupt it (Linux).

    So do processes that it starts. Where the system does not let it, all stays as it is.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


_PATIENCE_S = 10.0
_MOST_LOOPS = 1024
_NODE = "const os = require('os'); console.log(String(os.availableParallelism?.() ?? os.cpus().length))"
_LOOP = """
import sys, time
print(flush=True)
spin_s = float(sys.stdin.readline())
end_s, began_s = time.monotonic() + spin_s, time.process_time()
while time.monotonic() < end_s:
    pass
print(time.process_time() - began_s)
"""
"""Says that it is ready, waits to be told for how long, loops, and says how much CPU time it got."""


@dataclass(frozen=True)
class Said:
    """What one API says: a number of CPUs, a fraction for a quota; or None, and `because` says why."""

    api: str
    cpus: float | None
    because: str = ""


def all_said() -> list[Said]:
    """Ask every API that programs take their number of workers or threads from."""
    quota = quota_cpus()
    return [
        Said("Python os.cpu_count()", host_cpus()),
        _process_cpu_count(),
        Said("affinity", affinity_cpus()),
        Said("cgroup quota", quota, "" if quota else "no quota"),
        _asked("loky.cpu_count()", _loky),
        _asked("Node os.availableParallelism()", lambda: _printed("node", "-e", _NODE)),
        _asked("nproc", lambda: _printed("nproc")),
    ]


def _process_cpu_count() -> Said:
    count: Callable[[], int | None] | None = getattr(os, "process_cpu_count", None)
    name = "Python os.process_cpu_count()"
    return Said(name, count()) if count else Said(name, None, "from Python 3.13 on")


def _asked(api: str, ask: Callable[[], float | None]) -> Said:
    """Ask an API that may not be here, or fail."""
    try:
        found = ask()
    except Exception as error:  # whatever it is: the doctor goes on
        return Said(api, None, f"failed: {one_line(error)[:100]}")
    return Said(api, found, "" if found else "not installed")


def _loky() -> int | None:
    if importlib.util.find_spec("loky") is None:
        return None
    return int(importlib.import_module("loky").cpu_count())


def _printed(program: str, *arguments: str) -> int | None:
    path = find(program)
    if path is None:
        return None
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=True, timeout=_PATIENCE_S)
    return int(done.stdout)


def run_at_once(loops: int, for_s: float = 1.0) -> float:
    """Return how many CPUs so many endless loops get together: their CPU time over `for_s`.

    Each is a process of its own. What others use of the CPUs, and a quota, are in the number. Raises LabError
    if one ends early.
    """
    command = [sys.executable, "-I", "-S", "-c", _LOOP]
    with ExitStack() as running:
        started = [
            running.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(min(loops, _MOST_LOOPS))
        ]
        for one in started:
            _next_line(one)
        for one in started:
            print(for_s, file=one.stdin, flush=True)
        return sum(float(_next_line(one)) for one in started) / for_s


def _next_line(loop: "subprocess.Popen[str]") -> str:
    line = loop.stdout.readline() if loop.stdout else ""
    if not line:
        raise LabError("a loop ended early while CPUs were counted: is there memory for a process per CPU?")
    return line
