"""How many workers a server needs, and what limits it: what was measured of it, judged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from lab.models.statistics import busiest_by_chance

FULL = 0.85
"""CPUs are full if so much of their time is used: a lower bound is up to a tenth low, and gaps take some."""

IDLE = 0.6
"""CPUs are idle if less of their time is used: a lock that lets one of two compute leaves half of it."""

WAITS = 0.5
"""A request waits more than it computes if its CPU time is less than half of the time it takes alone."""

WAITS_SURELY = 0.1
"""... whatever others use: a request that computes gets so much of a CPU beside nine others."""

OCCUPIED = 0.7
"""Workers are occupied if, by Little's law, so many of them have a request each: as `FULL`, with a margin for
the time alone, which was measured at another moment."""

UNEVEN = 1.5
"""The busiest worker's CPU time over an equal share of it: even shares would give half as much again."""

_CHANCE = 0.99
"""So many random deals of the same requests must be more even: then the share is no chance."""

OTHERS_MATTER = 0.1
"""Others may lower the rate of a server that computes if they use so much: a trial is flagged for it, too."""

LEAST_GROWTH = 0.25
"""Of the memory before the load, what must be added in either half of it: a heap that fills up adds less."""

FILLS_WITHIN_S = 3600.0
"""A leak limits a server if it fills the free memory within an hour; a slower one takes a nightly restart."""

_SIGMAS = 2.0


class Limit(StrEnum):
    """What keeps a server from sustaining more; `verdict` says by which rule."""

    CPU = "cpu"
    WAITING = "waiting"
    MEMORY = "memory"
    GENERATOR = "generator"
    UNEVEN = "uneven"
    LOCK = "lock"
    ERRORS = "errors"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Sized:
    """What was measured of a server with so many workers; None where it could not be told.

    workers: how many it was asked to have; None for one that was already running. processes: how many
        processes without children it had.
    lower_rps, upper_rps: the bounds of its sustained rate, and `reason`, why one is missing or unconfirmed.
    generator_ended: the search ended because its generator could not be believed.
    alone_s: the median latency of requests sent one at a time.
    cpu_s_per_request, generator_cpu_s_per_request: CPU seconds of all its processes, and of the generator,
        at the sustained rate.
    requests: how many were sent at the sustained rate. busiest_share: the busiest worker's part of its
        workers' CPU seconds for them.
    pss_bytes_per_worker: after the load. leak_bytes_per_request: what each request left behind, or 0.
    low_requests, low_failures: requests at rates well below its highest throughput, and those that failed.
    p50_s_at_half and the like: latencies at half and at .8 of the lower bound, with random arrivals.
    others_cpu: what other processes and the hypervisor took of all CPU time, at the bound where it was more.
    """

    workers: int | None
    processes: int | None = None
    lower_rps: float | None = None
    upper_rps: float | None = None
    reason: str = ""
    generator_ended: bool = False
    alone_s: float | None = None
    cpu_s_per_request: float | None = None
    generator_cpu_s_per_request: float | None = None
    requests: int = 0
    busiest_share: float | None = None
    pss_bytes_per_worker: float | None = None
    leak_bytes_per_request: float | None = None
    low_requests: int = 0
    low_failures: int = 0
    p50_s_at_half: float | None = None
    p99_s_at_half: float | None = None
    p50_s_at_80: float | None = None
    p99_s_at_80: float | None = None
    others_cpu: float | None = None

    def used(self, cpus: float) -> float | None:
        """Return the share of all CPU time that server and generator use at the sustained rate."""
        if not self.lower_rps or self.cpu_s_per_request is None:
            return None
        both_s = self.cpu_s_per_request + (self.generator_cpu_s_per_request or 0.0)
        return self.lower_rps * both_s / cpus

    def busy(self, cpus: float) -> float | None:
        """Return the share of all CPU time that is used at the sustained rate, by others too."""
        used = self.used(cpus)
        return None if used is None else used + (self.others_cpu or 0.0)

    def crowded(self, cpus: float) -> bool:
        """Say whether it may do more without others: they left no CPU time, and it does not wait elsewhere.

        A request that waits needs none if each worker has one at a time; with several, as with threads or an
        event loop, that cannot be told.
        """
        if (self.others_cpu or 0.0) < OTHERS_MATTER or (self.busy(cpus) or 0.0) < FULL:
            return False
        return not self.waits() or (self.occupied() or 0.0) > 1 / OCCUPIED

    def may_sustain(self, cpus: float) -> float | None:
        """Return the upper bound; if it was crowded, what the CPU time of its requests allows."""
        if self.upper_rps is None or not self.cpu_s_per_request or not self.crowded(cpus):
            return self.upper_rps
        return max(self.upper_rps, min(self.workers or 1, cpus) / self.cpu_s_per_request)

    def occupied(self) -> float | None:
        """Return the share of the workers that have a request at the sustained rate, if none has two."""
        if not self.lower_rps or not self.workers or self.alone_s is None:
            return None
        return self.lower_rps * self.alone_s / self.workers

    def waits(self) -> bool:
        """Say whether a request surely waits more than it computes, and not just for CPUs that others use."""
        if self.cpu_s_per_request is None or not self.alone_s:
            return False
        share = max(WAITS * (1 - (self.others_cpu or 0.0)), WAITS_SURELY)
        return self.cpu_s_per_request < share * self.alone_s

    def leaks(self, memory_bytes: float) -> bool:
        """Say whether what requests leave behind soon fills so much memory."""
        rate_rps = self.lower_rps or self.upper_rps or 0.0
        return (self.leak_bytes_per_request or 0.0) * rate_rps * FILLS_WITHIN_S >= memory_bytes

    def memory_bytes(self) -> float:
        """Return the memory of all workers; 0 where it is not known."""
        return (self.pss_bytes_per_worker or 0.0) * (self.workers or 0)


@dataclass(frozen=True)
class Verdict:
    """How many of the measured numbers of workers to take, and what limits the server with them.

    workers: None if no number sustains any rate, if others' use of the CPUs decided which does more, or if
        the server was already running.
    beyond: of a server that waits, how many requests at once would use up the CPUs: as many workers, or
        threads, could help.
    ignores_workers: it has as many processes whatever number of workers it is told.
    """

    workers: int | None
    limit: Limit
    beyond: int | None = None
    ignores_workers: bool = False


def verdict(
    rows: Sequence[Sized], *, cpus: float, memory_bytes: float, allowed_failures: float = 0.01
) -> Verdict:
    """Recommend the fewest workers whose sustained rate cannot be told from the best one's, and say why.

    Two rates cannot be told apart if their bounds overlap, the upper being `Sized.may_sustain`. Workers that
    need more than `memory_bytes` are not recommended; nor are fewer than CPUs, if more were `Sized.crowded`:
    these may sustain more without others. The limit is the first of these that holds:

    - errors: at rates well below the highest throughput, more than `allowed_failures` of the requests fail,
      of these workers or of all up to so many.
    - memory: a leak fills it soon (`FILLS_WITHIN_S`); or more workers sustain more, but do not fit.
    - generator: it is not believed at higher rates, or it uses more of the full CPUs than the server.
    - cpu: server and generator use nearly all CPU time (`FULL`) at the sustained rate, or are crowded.
    - unknown, `ignores_workers`: with more workers, it has no more processes.
    - uneven: the busiest worker does far more than an equal share (`UNEVEN`), and more than chance gives,
      though CPUs have time left.
    - lock: more workers do not sustain more, though CPUs are idle (`IDLE`) or requests wait (`WAITS`), and
      fewer workers have a request (`OCCUPIED`) than would if each waited for something of its own. Only
      something that all wait for explains it.
    - waiting: requests wait more than they compute (`WAITS`), and the workers are occupied by them, but are
      idle (`IDLE`): one whose event loop is busy waits for nothing else.
    - cpu: each worker uses up a CPU, and more workers were not measured.
    - unknown: none of these.
    """
    rows = sorted(rows, key=lambda row: row.workers or 0)
    held = [row for row in rows if row.lower_rps]
    fitting = [row for row in held if row.memory_bytes() <= memory_bytes]
    if not fitting:
        return Verdict(None, _why_none(rows, held, memory_bytes, allowed_failures))
    chosen = _fewest(fitting, cpus)
    more = [row for row in fitting if (row.workers or 0) > (chosen.workers or 0)]
    best = max(held, key=lambda row: row.lower_rps or 0.0)
    full = (chosen.used(cpus) or 0.0) >= FULL
    found = Verdict(chosen.workers, Limit.UNKNOWN)
    up_to = [row for row in rows if (row.workers or 0) <= (chosen.workers or 0)]
    if any(_fail(tried, allowed_failures) for tried in (up_to, [chosen])):
        return replace(found, limit=Limit.ERRORS)
    if chosen.leaks(memory_bytes) or (best not in fitting and not _alike(chosen, best, cpus)):
        return replace(found, limit=Limit.MEMORY)
    if chosen.generator_ended or (full and _mostly_generator(chosen)):
        return replace(found, limit=Limit.GENERATOR)
    if (chosen.workers or 0) < cpus and any(row.crowded(cpus) for row in more):
        return replace(found, workers=None)
    if full or chosen.crowded(cpus):
        return replace(found, limit=Limit.CPU)
    if _has_no_more(chosen, more):
        return replace(found, ignores_workers=True)
    if any(_is_uneven(row) for row in (chosen, *more)):
        return replace(found, limit=Limit.UNEVEN)
    if more and _is_locked(more[-1], cpus):
        return replace(found, limit=Limit.LOCK)
    if chosen.waits() and (chosen.occupied() or 0.0) >= OCCUPIED and not _uses_of_its_own(chosen, IDLE):
        return replace(found, limit=Limit.WAITING, beyond=_at_once(chosen, cpus))
    return replace(found, limit=Limit.CPU) if not more and _uses_of_its_own(chosen, FULL) else found


def verdict_of_running(row: Sized, allowed_failures: float = 0.01) -> Verdict:
    """Judge a server that was already running: its processes are not seen, so only two limits can be told."""
    if fails(row.low_requests, row.low_failures, allowed_failures):
        return Verdict(None, Limit.ERRORS)
    return Verdict(None, Limit.GENERATOR if row.generator_ended else Limit.UNKNOWN)


def fails(requests: int, failures: int, allowed: float) -> bool:
    """Say whether more requests fail than the allowed share, by more than chance: two standard errors."""
    expected = allowed * requests
    return failures > expected + _SIGMAS * math.sqrt(expected) and failures > 0


def leak(points: Sequence[tuple[int, float]]) -> float:
    """Return the bytes that each request leaves behind, 0 if memory does not grow all the time.

    A point is how many requests were answered by then, and the memory of all processes. Memory must grow in
    both halves of the requests, each time by `LEAST_GROWTH` of what it was at first; the lesser of both rates
    counts. So caches and heaps that fill up are none.
    """
    if len(points) < 3 or points[-1][0] <= points[0][0]:
        return 0.0
    half = (points[0][0] + points[-1][0]) / 2
    middle = min(points[1:-1], key=lambda point: abs(point[0] - half))
    rates = []
    for before, after in ((points[0], middle), (middle, points[-1])):
        grown = after[1] - before[1]
        if after[0] <= before[0] or grown < LEAST_GROWTH * points[0][1]:
            return 0.0
        rates.append(grown / (after[0] - before[0]))
    return min(rates)


def worth_measuring(cpus: int) -> list[int]:
    """Return the numbers of workers to measure by default: one to twice the CPUs, and the folk 2 n + 1."""
    return sorted({1, max(1, cpus // 4), max(1, cpus // 2), cpus, 2 * cpus, 2 * cpus + 1})


def _why_none(rows: Sequence[Sized], held: Sequence[Sized], memory_bytes: float, allowed: float) -> Limit:
    if held:
        return Limit.MEMORY
    if any(_fail(tried, allowed) for tried in (rows, *([row] for row in rows))):
        return Limit.ERRORS
    if any(row.leaks(memory_bytes) for row in rows):
        return Limit.MEMORY
    return Limit.GENERATOR if rows and all(row.generator_ended for row in rows) else Limit.UNKNOWN


def _fail(rows: Sequence[Sized], allowed: float) -> bool:
    return fails(sum(row.low_requests for row in rows), sum(row.low_failures for row in rows), allowed)


def _fewest(rows: Sequence[Sized], cpus: float) -> Sized:
    best = max(rows, key=lambda row: row.lower_rps or 0.0)
    alike = [row for row in rows if row is best or _alike(row, best, cpus)]
    return min(alike, key=lambda row: row.workers or 0)


def _alike(row: Sized, best: Sized, cpus: float) -> bool:
    """Say whether a rate may be as high as the best: without an upper bound, if the generator ended it."""
    upper_rps = row.may_sustain(cpus)
    return row.generator_ended if upper_rps is None else upper_rps >= (best.lower_rps or 0.0)


def _mostly_generator(row: Sized) -> bool:
    return (row.generator_cpu_s_per_request or 0.0) > (row.cpu_s_per_request or 0.0)


def _has_no_more(chosen: Sized, more: Sequence[Sized]) -> bool:
    if chosen.processes is None or not more:
        return False
    return all(row.processes is not None and row.processes <= chosen.processes for row in more)


def _is_uneven(row: Sized) -> bool:
    workers, share = row.workers or 1, row.busiest_share
    if workers == 1 or share is None or share * workers < UNEVEN or not row.requests:
        return False
    return bool(share > np.quantile(busiest_by_chance([1.0] * row.requests, workers), _CHANCE))


def _is_locked(largest: Sized, cpus: float) -> bool:
    busy, occupied = largest.busy(cpus), largest.occupied()
    needs_none = largest.waits() or (busy is not None and busy < IDLE)
    return needs_none and occupied is not None and occupied < OCCUPIED


def _at_once(row: Sized, cpus: float) -> int | None:
    return math.floor(cpus * (row.alone_s or 0.0) / row.cpu_s_per_request) if row.cpu_s_per_request else None


def _uses_of_its_own(row: Sized, share: float) -> bool:
    """Say whether its workers use such a share of a CPU each."""
    return (row.lower_rps or 0.0) * (row.cpu_s_per_request or 0.0) >= share * (row.workers or 1)
