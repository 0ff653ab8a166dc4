"""A server of the reader's under load: each attack on it, and what its processes cost meanwhile."""

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil

from lab.errors import LabError
from lab.load.attack import Result, attack
from lab.machine import available_memory
from lab.models.sizing import leak
from lab.servers.foreign import ForeignServer
from lab.study.stability import Noise, Snapshot, between, snapshot
from lab.study.sustained import one_at_a_time, took_s

_WELL_BELOW = 0.9
"""Times the highest throughput seen: failures at such rates are no sign of overload."""

_LEAST_CPU_S = 0.2
"""Of all workers, for a share of it to say something: the system counts in hundredths of a second."""

_MOST_MEMORY = 0.5
"""Of the memory that was free: a server that takes more is measured no further."""

_FIRST, _MOST_ALONE, _ALONE_FOR_S = 3, 30, 1.0


class StoppedError(LabError):
    """More of the same would tell nothing more, or harm the machine."""


@dataclass(frozen=True)
class Seen:
    """One attack: what was offered, what became of it, and what it cost.

    cpu_s, by_worker: CPU seconds of all the server's processes, and of each of its workers; nan, and empty,
    where it is not ours to see. others_cpu: what other processes and the hypervisor took of all CPU time.
    """

    rate_rps: float
    requests: int
    ok: int
    throughput_rps: float
    cpu_s: float
    generator_cpu_s: float
    by_worker: Mapping[int, float]
    others_cpu: float


class Watched:
    """Attacks one server, and keeps what was seen of each attack; without a server of ours, only its answers.

    options: those of `attack`.
    """

    def __init__(self, url: str, server: ForeignServer | None, options: Mapping[str, Any]) -> None:
        self.url = url
        self.seen: list[Seen] = []
        self._server = server
        self._options = dict(options)
        self._seed = int(self._options.pop("seed", 0))
        self._free_bytes = available_memory()
        self._memory: list[tuple[int, float]] = []

    def alone(self) -> float:
        """Return the median latency of requests that are sent one at a time, for about a second.

        Raises LabError if none of the first is answered well.
        """
        first = one_at_a_time(self.url, _FIRST, self._options)
        if not first.summary["ok"]:
            told = "a path that answers well, with --path" if self._server else "a URL that answers well"
            raise LabError(f"{self.url} {_said(first)}: name {told}")
        one_s = took_s(first)
        more = min(_MOST_ALONE, int(_ALONE_FOR_S / one_s)) if one_s > 0 else _MOST_ALONE
        if more > _FIRST:
            one_s = took_s(one_at_a_time(self.url, more, self._options))
        self._weigh(0)
        return one_s

    def offer(self, rate_rps: float, duration_s: float, number: int, **changes: Any) -> Result:
        """Attack it, and return the result. Raises StoppedError rather than filling the memory."""
        options = {**self._options, "seed": self._seed + number, **changes}
        before, cpu_s, workers_s = self._snapshot(), self._cpu_s(), self._by_worker()
        result = attack(self.url, rate=rate_rps, duration=duration_s, **options)
        noise = between(before, self._snapshot())
        self.seen.append(self._seen(rate_rps, result, self._cpu_s() - cpu_s, workers_s, noise))
        self._weigh(result.summary["planned"])
        return result

    def at(self, rate_rps: float | None) -> list[Seen]:
        """Return the attacks at a rate; all of them if it is None."""
        return [seen for seen in self.seen if rate_rps is None or seen.rate_rps == rate_rps]

    def low(self) -> tuple[int, int]:
        """Return how many requests were sent at rates well below the highest throughput; how many failed."""
        most_rps = max((seen.throughput_rps for seen in self.seen), default=0.0)
        calm = [seen for seen in self.seen if seen.rate_rps <= _WELL_BELOW * most_rps]
        return sum(seen.requests for seen in calm), sum(seen.requests - seen.ok for seen in calm)

    def pss_bytes(self) -> list[int]:
        """Return the proportional set size of each worker: a page that several share counts once in all."""
        return _pss(self._workers())

    def leak_bytes(self) -> float | None:
        """Return what each request leaves behind, as `lab.models.sizing.leak` has it."""
        return leak(self._memory) if self._server else None

    def _weigh(self, requests: int) -> None:
        if self._server is None:
            return
        held = float(sum(_pss(self._server.processes())))
        answered = self._memory[-1][0] if self._memory else 0
        self._memory.append((answered + requests, held))
        if held > _MOST_MEMORY * self._free_bytes:
            share = f"{held / self._free_bytes:.0%}"
            raise StoppedError(f"it took {share} of the free memory, so it was measured no further")

    def _workers(self) -> list[psutil.Process]:
        if self._server is None:
            return []
        pids = set(self._server.workers)
        return [process for process in self._server.processes() if process.pid in pids]

    def _cpu_s(self) -> float:
        return self._server.cpu_s() if self._server else math.nan

    def _by_worker(self) -> dict[int, float]:
        found = {}
        for process in self._workers():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                found[process.pid] = times.user + times.system
        return found

    def _snapshot(self) -> Snapshot:
        """Count the server's CPU time as our own: it is still running, so the system does not yet."""
        now, cpu_s = snapshot(), self._cpu_s()
        return now if math.isnan(cpu_s) else replace(now, own_s=now.own_s + cpu_s)

    def _seen(
        self, rate_rps: float, result: Result, cpu_s: float, before_s: Mapping[int, float], noise: Noise
    ) -> Seen:
        summary = result.summary
        return Seen(
            rate_rps=rate_rps,
            requests=summary["planned"],
            ok=summary["ok"],
            throughput_rps=summary["throughput"],
            cpu_s=cpu_s,
            generator_cpu_s=summary["generator"]["cpu_s"] or 0.0,
            by_worker={pid: now_s - before_s.get(pid, 0.0) for pid, now_s in self._by_worker().items()},
            others_cpu=noise.others_cpu + noise.steal if self._server else math.nan,
        )


def busiest_share(attacks: Sequence[Seen]) -> float | None:
    """Return the busiest worker's part of all workers' CPU seconds; None if it is too little to tell."""
    total: Counter[int] = Counter()
    for seen in attacks:
        total.update(seen.by_worker)
    spent_s = sum(total.values())
    return max(total.values()) / spent_s if len(total) > 1 and spent_s >= _LEAST_CPU_S else None


def per_request(attacks: Sequence[Seen], what: str) -> float | None:
    """Return the sum of a cost over attacks by that of their requests; None if it is not known."""
    requests, cost = sum(seen.requests for seen in attacks), sum(getattr(seen, what) for seen in attacks)
    return cost / requests if requests and math.isfinite(cost) else None


def _pss(processes: Sequence[psutil.Process]) -> list[int]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error, AttributeError):  # not every system tells it
            found.append(int(process.memory_full_info().pss))
    return found


def _said(result: Result) -> str:
    """Say what became of requests that were not answered well."""
    codes = ", ".join(code for code in result.summary["status_codes"] if code != "0")
    return (
        f"answers with status {codes}"
        if codes
        else f"does not answer: {next(iter(result.summary['errors']), 'nothing came')}"
    )
