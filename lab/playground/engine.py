"""A server under load whose rate may change while it runs: both are started, disturbed and ended together.

No widgets here. All methods may be called from any thread.
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import Field

from lab.checks import Rate, Whole
from lab.cpus import available_cpus
from lab.errors import LabError, UsageError
from lab.hotloop import MOST_TIMES, KernelName
from lab.load.arrivals import Arrivals
from lab.load.generators import generators_with_room
from lab.load.live import LiveLoad, Report
from lab.playground.theory import Theory, predict
from lab.playground.window import Numbers, Window
from lab.servers.counters import WorkerCounters
from lab.servers.handle import Server
from lab.servers.spec import DispatchName, ServerSpec, Topology
from lab.study.parameters import Parameters as _Parameters
from lab.study.parameters import WorkerCount
from lab.units import seconds

MOST_RPS = 1000.0
"""What one generator is trusted with where `lab doctor` has not measured more."""

BLOCKED_S = 3.0
"""For how long a blocked worker does nothing else."""

TIMEOUT_S = 10.0
_BLOCKED_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.2
_BUSY_OVER_S, _BUSY_OVER_LOOPS = 2.0, 20
"""What else a worker does is judged over so long, and over so many loops that one makes no difference."""

_PREDICTED_WITHIN_S = 0.02


class Parameters(_Parameters):
    """What the playground starts with; `rate` is in requests per second."""

    topology: Topology
    dispatch: DispatchName
    workers: WorkerCount
    kernel: KernelName
    iterations: Whole
    arrivals: Arrivals
    rate: Annotated[Rate, Field(le=MOST_RPS)]

    def spec(self) -> ServerSpec:
        """Return the server to start. Raises UsageError if there can be none like it."""
        workers = 1 if self.topology == "single" else self.workers
        return ServerSpec(
            **self.model_dump(include={"topology", "dispatch", "kernel", "iterations"}), workers=workers
        )


@dataclass(frozen=True)
class Worker:
    """A worker as it is now: its place among the workers, and its share of the answers counted lately.

    is_busy: whether it was mostly busy, of late, when it had none of the requests that were answered: with
    what its clients gave up, or with what blocks it.
    """

    index: int
    pid: int
    restarts: int
    share: float
    is_busy: bool


@dataclass(frozen=True)
class Moment:
    """How things stand `at_s` seconds after the start; `theory` is None until there is something to go by.

    trouble: why there are no answers any more; usually empty.
    """

    at_s: float
    rate_rps: float
    numbers: Numbers
    theory: Theory | None
    workers: tuple[Worker, ...]
    trouble: str


@dataclass(frozen=True)
class Totals:
    """What became of all requests that fell due: `outcomes` sum to `due`."""

    due: int
    outcomes: dict[str, int]


@dataclass(frozen=True)
class _Look:
    """The seconds that each worker, by pid, had spent in loops: by its own count, and by its answers."""

    at_s: float
    spent_s: dict[int, float]
    answered_s: dict[int, float]

    def busy_since(self, before: "_Look") -> set[int]:
        """Return the workers that were busy for most of the time for which no answer accounts."""
        over_s = self.at_s - before.at_s
        found = set()
        for pid in self.spent_s.keys() & before.spent_s.keys():
            spent_s = self.spent_s[pid] - before.spent_s[pid]
            answered_s = self.answered_s[pid] - before.answered_s[pid]
            if spent_s - answered_s > (over_s - answered_s) / 2:
                found.add(pid)
        return found


@dataclass
class _Running:
    parameters: Parameters
    server: Server
    window: Window = field(default_factory=Window)
    load: LiveLoad | None = None
    rate_rps: float = 0.0
    loop_s: float = 0.0
    members: tuple[WorkerCounters, ...] = ()
    busy: set[int] = field(default_factory=set)
    looks: deque[_Look] = field(default_factory=deque)
    index_of: dict[int, int] = field(default_factory=dict)
    trouble: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def looked(self, found: list[WorkerCounters]) -> None:
        """Note what workers have done by now, and which of them are busy with what is not answered."""
        answered_s = {one.pid: self.window.loops_s[one.pid] for one in found}
        look = _Look(time.monotonic(), {one.pid: one.busy_s for one in found}, answered_s)
        over_s = max(_BUSY_OVER_S, _BUSY_OVER_LOOPS * self.loop_s)
        self.looks.append(look)
        while len(self.looks) > 1 and self.looks[1].at_s < look.at_s - over_s:
            self.looks.popleft()
        self.members, self.busy = tuple(found), look.busy_since(self.looks[0])
        self.index_of |= {one.pid: one.index for one in found}


class Engine:
    """At most one server and its generator at a time; neither outlives this process, however that ends."""

    def __init__(self) -> None:
        self._changing = threading.RLock()
        self._reading = threading.Lock()
        self._now: _Running | None = None
        self._predictor = ThreadPoolExecutor(1, thread_name_prefix="playground-theory")
        self._prediction: Future[Theory] | None = None
        self._theory: Theory | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a server under load."""
        return self._now is not None

    @property
    def pids(self) -> list[int]:
        """The processes that it has started: the server's, and the generator's."""
        if (now := self._now) is None:
            return []
        return [now.server.pid, *now.server.workers, *([now.load.pid] if now.load else ())]

    def start(self, parameters: Parameters) -> None:
        """Start a server, and offer load to it; return when it does.

        Raises UsageError for what cannot be started, LabError if it has not, or if one runs already.
        """
        with self._changing:
            if self._now:
                raise LabError("it runs already: stop it first")
            now = _Running(parameters, Server(parameters.spec()), rate_rps=parameters.rate)
            try:
                self._look(now)
                now.load = LiveLoad(
                    now.server.url + "/api/slow",
                    parameters.rate,
                    lambda report: self._hear(now, report),
                    arrivals=parameters.arrivals,
                    timeout_s=TIMEOUT_S,
                    realtime=generators_with_room() < available_cpus(),
                )
            except BaseException:
                now.server.stop()
                raise
            self._theory = self._prediction = None
            self._now = now
        threading.Thread(target=self._watch, args=(now,), name="playground", daemon=True).start()

    def stop(self) -> Totals:
        """End both, and prove that they are gone; return what became of the load. Repeating is harmless."""
        with self._changing:
            now, self._now = self._now, None
            if now is None:
                return Totals(0, {})
            now.over.set()
            try:
                if now.load:
                    now.load.stop()
            finally:
                now.server.send_signal(signal.SIGINT)  # the second signal of two ends it without draining
                now.server.stop()
                if now.server.log_path:  # kept to explain failures; here they were deliberate
                    now.server.log_path.unlink(missing_ok=True)
            return Totals(now.window.due, dict(now.window.outcomes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def set_rate(self, rate_rps: float) -> None:
        """Offer another rate from now on. Raises UsageError for one too high to trust a generator with."""
        if not 0 <= rate_rps <= MOST_RPS:
            raise UsageError(f"rate must be from 0 to {MOST_RPS:g} requests/s, got {rate_rps:g}")
        now = self._running()
        now.rate_rps = rate_rps
        if now.load:
            now.load.set_rate(rate_rps)

    def scale(self, workers: int) -> str:
        """Have that many workers. Raises what `Server.scale` does."""
        self._running().server.scale(workers)
        return f"{workers} now"

    def kill_worker(self) -> str:
        """Kill a worker; return which, in words. Raises LabError if there is none."""
        now = self._running()
        if not (pids := now.server.workers):
            raise LabError("there is no worker left to kill")
        pid = random.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return self._named(now, pid)

    def block_worker(self) -> str:
        """Send one request whose loop takes `BLOCKED_S`; return which worker had it, in words.

        Raises LabError if it is not answered.
        """
        import requests

        now = self._running()
        service_s = self._service_s(now)
        times = min(MOST_TIMES, max(1, round(BLOCKED_S / max(service_s, 1e-6))))
        began_s = time.monotonic()
        with requests.Session() as session:
            session.trust_env = False  # no proxy between us and loopback
            try:
                answer = session.get(f"{now.server.url}/api/slow?times={times}", timeout=_BLOCKED_WITHIN_S)
                answer.raise_for_status()
            except requests.RequestException as error:
                raise LabError(f"the request that blocks was not answered: {type(error).__name__}") from None
        took = seconds(time.monotonic() - began_s)
        return f"{self._named(now, int(answer.headers['X-Worker']))} for {took}"

    def recycle(self) -> str:
        """Replace all workers, one at a time. Raises what `Server.recycle` does."""
        now = self._running()
        now.server.recycle()
        return f"{len(now.server.workers)} new ones"

    def moment(self) -> Moment:
        """Return how things stand. Raises LabError if nothing runs."""
        now = self._running()
        with self._reading:
            at_s, numbers = now.window.now_s, now.window.numbers()
        now.loop_s = numbers.service_s or now.loop_s
        self._predict(now, numbers)
        answers = sum(numbers.by_worker.values())
        by_index: Counter[int] = Counter()
        for pid, count in numbers.by_worker.items():
            by_index[now.index_of.get(pid, -1)] += count
        workers = tuple(
            Worker(
                one.index, one.pid, one.restarts, by_index[one.index] / (answers or 1), one.pid in now.busy
            )
            for one in now.members
        )
        return Moment(at_s, now.rate_rps, numbers, self._theory, workers, now.trouble)

    def recent(self, over_s: float, most: int) -> tuple[Report, list[int | None]]:
        """Return what `Window.recent` does, and of each request that ended, its worker's place.

        Raises LabError if nothing runs.
        """
        now = self._running()
        with self._reading:
            report = now.window.recent(over_s, most)
        return report, [now.index_of.get(row.worker) for row in report.rows]

    def _running(self) -> _Running:
        if (now := self._now) is None:
            raise LabError("nothing runs: start it first")
        return now

    def _named(self, now: _Running, pid: int) -> str:
        return f"worker {now.index_of.get(pid, 0) + 1} (process {pid})"

    def _service_s(self, now: _Running) -> float:
        with self._reading:
            return now.window.numbers().service_s or BLOCKED_S

    def _hear(self, now: _Running, report: Report) -> None:
        with self._reading:
            now.window.add(report)

    def _watch(self, now: _Running) -> None:
        """Know the workers, and notice the end of what should run."""
        while not now.over.wait(_LOOK_EVERY_S):
            self._look(now)

    def _look(self, now: _Running) -> None:
        try:
            found = now.server.counters()
        except LabError as error:
            now.members, now.trouble = (), str(error)
            return
        now.looked(found)
        gone = not now.server.workers
        now.trouble = "the server is gone" if gone else ""
        if now.load and not now.load.is_running:
            now.trouble = "the load generator has ended"

    def _predict(self, now: _Running, numbers: Numbers) -> None:
        """Have theory worked out beside: usually that takes milliseconds, but seconds the first time."""
        if self._prediction is None and numbers.service_s and now.rate_rps and now.members:
            factors: dict[str, Any] = now.parameters.model_dump()
            factors |= {"workers": len(now.members), "pool": "process"}
            self._prediction = self._predictor.submit(
                predict, factors, now.rate_rps, numbers.service_s, numbers.service_cpu_s, available_cpus()
            )
        if self._prediction:
            with contextlib.suppress(TimeoutError):
                self._theory = self._prediction.result(_PREDICTED_WITHIN_S)
                self._prediction = None
