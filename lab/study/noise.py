"""How quiet the machine is: what others took of its CPUs while a trial ran."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

MOST_STEAL = 0.02
"""When the hypervisor takes more than one moment in fifty, a p99 may be made of its pauses."""

MOST_OTHERS_CPU = 0.10
"""Above this share of all CPUs used by processes that are not ours, what a worker gets depends on them.

An idle desktop uses 1 to 3 %. On a large machine these may be CPUs that nobody misses: flagged all the same.
"""

STOLEN, CROWDED = "the hypervisor took", "other processes took"
"""How the reasons begin that are about contention: it slows answers down, and loses some, but saves none."""

_RESOLUTION_S = 0.05
"""What counters that tick in hundredths of a second, and not at the same moment, may be apart."""


@dataclass(frozen=True)
class Snapshot:
    """Counters of CPU seconds over all CPUs; `stalled_s` is None where the kernel does not count it."""

    total_s: float
    idle_s: float
    stolen_s: float
    own_s: float
    wall_s: float
    stalled_s: float | None
    load1: float


@dataclass(frozen=True)
class Noise:
    """What happened between two snapshots, as shares of all CPU time (`cpu_pressure`: of wall time).

    `steal`: taken by the hypervisor. `others_cpu`: used by processes that are not ours. `cpu_pressure`: time
    in which something waited for a CPU, our own processes included. `load1`: the load average before.
    """

    steal: float
    others_cpu: float
    cpu_pressure: float | None
    load1: float

    def disturbances(self) -> list[str]:
        """Say what spoils a trial; load average and CPU pressure do not: a full server raises them itself."""
        reasons = []
        if self.steal > MOST_STEAL:
            reasons.append(f"{STOLEN} {self.steal:.0%} of the CPU time")
        if self.others_cpu > MOST_OTHERS_CPU:
            reasons.append(f"{CROWDED} {self.others_cpu:.0%} of the CPU time")
        return reasons


def snapshot(root: Path = Path("/")) -> Snapshot:
    """Read the counters now; `root` is where /proc is found."""
    times = psutil.cpu_times()
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user and nice too
    own = os.times()
    return Snapshot(
        total_s=sum(times) - guests,
        idle_s=times.idle + getattr(times, "iowait", 0.0),
        stolen_s=getattr(times, "steal", 0.0),
        own_s=own.user + own.system + own.children_user + own.children_system,
        wall_s=own.elapsed,
        stalled_s=_stalled_s(root / "proc/pressure/cpu"),
        load1=os.getloadavg()[0],
    )


def _stalled_s(pressure: Path) -> float | None:
    """Parse `some avg10=0.00 avg60=0.04 avg300=0.20 total=8463364`, where total is in microseconds."""
    try:
        some = next(line for line in pressure.read_text().splitlines() if line.startswith("some "))
        return int(some.rpartition("total=")[2]) / 1e6
    except (OSError, StopIteration, ValueError):
        return None


def between(before: Snapshot, after: Snapshot) -> Noise:
    """Return the noise between two snapshots; every process started in between must have been reaped."""
    total_s = max(after.total_s - before.total_s, 1e-9)
    stolen_s = after.stolen_s - before.stolen_s
    busy_s = total_s - (after.idle_s - before.idle_s) - stolen_s
    pressure = None
    if before.stalled_s is not None and after.stalled_s is not None:
        pressure = _share(after.stalled_s - before.stalled_s, max(after.wall_s - before.wall_s, 1e-9))
    return Noise(
        steal=_share(stolen_s, total_s),
        others_cpu=_share(busy_s - (after.own_s - before.own_s) - _RESOLUTION_S, total_s),
        cpu_pressure=pressure,
        load1=before.load1,
    )


def _share(part: float, whole: float) -> float:
    """Keep a ratio of two clocks that tick apart within 0 and 1."""
    return min(max(part / whole, 0.0), 1.0)
