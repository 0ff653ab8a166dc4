"""How many workers a server of the reader's needs: each number of them measured, and one recommended."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from lab.cpus import available_cpus, quota_cpus
from lab.errors import LabError
from lab.load.report import Slo
from lab.machine import available_memory
from lab.models.sizing import Sized, Verdict, fails, verdict, verdict_of_running
from lab.progress import Display, Told, display
from lab.servers.foreign import ForeignServer
from lab.study import advice
from lab.study.rate_search import BEYOND, RateTrial, Search
from lab.study.run import Run
from lab.study.size_plan import LONGER, USUAL_TRIALS, Plan
from lab.study.sustained import MOST_RPS, Sustained
from lab.study.trial import Measured
from lab.study.watched import Seen, StoppedError, Watched, busiest_share, per_request
from lab.units import counted, per_second

HALF, MOST = 0.5, 0.8
"""Of the sustained rate: where latencies are looked at, once with room to spare, once with little."""

_LEAST_TRIALS = 4
"""Of a search that is ended: fewer may not have found a bound, however long they took to drain."""

_FEWEST_REQUESTS, _ENOUGH_REQUESTS = 20, 300
"""To look at latencies: whatever time that takes, and, if time allows, as many as a p99 needs."""

_GENERATOR_ENDED = "the load generator"


@dataclass(frozen=True)
class Size:
    """What was measured, by number of workers, and what follows; `run_id` is where it is kept, if anywhere.

    cpus, memory_bytes: what there was for it: CPUs, as a quota may make them a fraction, and free memory.
    """

    plan: Plan
    rows: tuple[Sized, ...]
    cpus: float
    memory_bytes: float
    run_id: str = ""

    @property
    def slos(self) -> list[Slo]:
        """What every request must get, and what that implies."""
        return Slo.parse_all(self.plan.slo)

    @property
    def verdict(self) -> Verdict:
        """How many workers to take, and what limits them."""
        allowed = _allowed(self.slos)
        if self.plan.url:
            return verdict_of_running(self.rows[0], allowed)
        return verdict(self.rows, cpus=self.cpus, memory_bytes=self.memory_bytes, allowed_failures=allowed)

    @property
    def why(self) -> str:
        """The answer in two sentences: how many workers, and what limits them."""
        return advice.in_words(self.verdict, self.rows, self.cpus, self.memory_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Return it as `lab size --format json` prints it."""
        found = self.verdict
        return {
            "command": list(self.plan.command) or None,
            "url": self.plan.url or None,
            "path": self.plan.path,
            "slo": [{"name": slo.name, "limit": slo.limit, "implied": slo.implied} for slo in self.slos],
            "cpus": self.cpus,
            "memory_bytes": self.memory_bytes,
            "recommended_workers": found.workers,
            "limited_by": found.limit.value,
            "why": self.why,
            "useful_at_once": found.beyond,
            "by_workers": [asdict(row) | {"reason": row.reason or None} for row in self.rows],
            "run_id": self.run_id or None,
        }


class Interrupted(KeyboardInterrupt):
    """Sizing was interrupted; `found` is what it had measured by then, at least one number of workers."""

    def __init__(self, found: Size) -> None:
        super().__init__()
        self.found = found


def size(plan: Plan, run: Run | None = None) -> Size:
    """Measure a server with each number of workers, and recommend one.

    Each number has a fresh server. It answers some requests one at a time; then its sustained rate is
    searched for, in requests/s; then it is offered half and .8 of that, with random arrivals. A
    `run` keeps what was measured, by number of workers, and what it has is not measured again.

    Raises UsageError for what makes no sense, LabError if the server does not start or answer, Interrupted.
    """
    rows: list[Sized] = []
    cpus = min(quota_cpus() or math.inf, available_cpus())
    memory_bytes = float(available_memory())
    run_id = run.run_id if run else ""
    line = Told(run.path, "size") if run else display()
    try:
        for number, workers in enumerate(plan.counts()):
            look = _Look(plan, workers, cpus, rows, line, number / len(plan.counts()))
            name = f"size-{workers or 'url'}-{plan.digest()}"
            frame = run.table(name, look.frame) if run else look.frame()
            if run and look.trials:
                run.keep(name.replace("size", "size-trials"), pd.DataFrame(look.trials))
            rows.append(_row(frame))
            cpus, memory_bytes = (float(frame[column].iloc[0]) for column in ("cpus", "memory_bytes"))
    except KeyboardInterrupt:
        if rows:
            raise Interrupted(Size(plan, tuple(rows), cpus, memory_bytes, run_id)) from None
        raise
    finally:
        line.close()
    return Size(plan, tuple(rows), cpus, memory_bytes, run_id)


class _Look:
    """One look: a fresh server with so many workers, or the one that runs; `trials` holds a row for each."""

    def __init__(
        self,
        plan: Plan,
        workers: int | None,
        cpus: float,
        before: Sequence[Sized],
        line: Display,
        share: float,
    ) -> None:
        self.trials: list[dict[str, Any]] = []
        self._plan = plan
        self._workers = workers
        self._cpus = cpus
        self._before = before
        self._line = line
        self._share = share
        self._memory_bytes = available_memory()

    def frame(self) -> pd.DataFrame:
        """Measure it; return the fields of `Sized` as one row, beside the CPUs and memory that there were."""
        if self._workers is None:
            options = dict(self._plan.request)
            row = self._measured(Watched(self._plan.url, None, options), None)
        else:
            with ForeignServer(self._plan.spec(self._workers)) as server:
                watched = Watched(server.url + self._plan.path, server, self._plan.request)
                try:
                    row = self._measured(watched, server)
                except LabError as error:
                    if server.processes():
                        raise
                    words = " | ".join(server.log(3).splitlines())
                    raise LabError(f"{self._plan.command[0]} ended under load ({words}): {error}") from None
        return pd.DataFrame([asdict(row) | {"cpus": self._cpus, "memory_bytes": self._memory_bytes}])

    def _measured(self, watched: Watched, server: ForeignServer | None) -> Sized:
        self._tell("one request at a time", 0)
        alone_s = watched.alone()
        found = self._searched(watched, alone_s)
        at_bound = watched.at(found.held_rps)
        low = watched.low()
        latencies = self._latencies(watched, found.lower_rps)
        if not fails(*low, _allowed(found.slos)):  # else the search ended for that
            low = watched.low()
        self.trials = self._table(found, watched)
        pss = watched.pss_bytes()
        return Sized(
            workers=self._workers,
            processes=len(server.workers) if server else None,
            lower_rps=found.lower_rps,
            upper_rps=found.upper_rps,
            reason=found.reason,
            generator_ended=found.reason.startswith(_GENERATOR_ENDED),
            alone_s=alone_s,
            cpu_s_per_request=per_request(at_bound, "cpu_s"),
            generator_cpu_s_per_request=per_request(at_bound, "generator_cpu_s"),
            requests=sum(seen.requests for seen in at_bound),
            busiest_share=busiest_share(at_bound),
            pss_bytes_per_worker=sum(pss) / len(pss) if pss else None,
            leak_bytes_per_request=watched.leak_bytes(),
            low_requests=low[0],
            low_failures=low[1],
            others_cpu=_most([at_bound, watched.at(found.failed_rps)]),
            **latencies,
        )

    def _searched(self, watched: Watched, alone_s: float) -> Sustained:
        slos, arrivals = Slo.parse_all(self._plan.slo), str(self._plan.request.get("arrivals", "constant"))
        duration_s = float(self._plan.duration_s)
        allowed = _allowed(slos)
        until_s = time.monotonic() + self._plan.search_s()

        def offer(rate_rps: float, lasts_s: float, number: int) -> Measured:
            if number >= _LEAST_TRIALS and time.monotonic() > until_s:
                raise StoppedError(f"the search ran out of time after {counted(number, 'trial')}")
            result = watched.offer(rate_rps, lasts_s, number)
            requests, failures = watched.low()
            if fails(requests, failures, allowed):  # a search for a rate would go on and on
                raise StoppedError(f"{failures} of {requests} requests failed at low rates")
            return result

        search = Search(
            offer, slos, duration_s=duration_s, arrivals=arrivals,
            workers=self._workers, cpus=self._cpus, on_trial=self._tell_trial,
        )  # fmt: skip
        try:
            found = search.run(self._guess_rps(alone_s), MOST_RPS, self._plan.precision)
        except StoppedError as error:
            found = *search.so_far()[:2], str(error)
        return Sustained.by_rates(watched.url, slos, arrivals, found, search.trials)

    def _guess_rps(self, alone_s: float) -> float:
        """Return a rate that overloads the server, by what it does alone, or did with fewer workers."""
        workers = self._workers or available_cpus()
        rates = [workers / alone_s if alone_s > 0 else 1 / float(self._plan.duration_s)]
        held = [row for row in self._before if row.lower_rps and row.workers]
        rates += [workers * (row.lower_rps or 0.0) / (row.workers or 1) for row in held[-1:]]
        guess = max(rates)
        costs = [row.cpu_s_per_request for row in held if row.cpu_s_per_request]
        return BEYOND * (min(guess, self._cpus / min(costs)) if costs else guess)

    def _latencies(self, watched: Watched, lower_rps: float | None) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for number, (share, name) in enumerate(((HALF, "half"), (MOST, "80")) if lower_rps else ()):
            rate_rps = share * (lower_rps or 0.0)
            self._tell(f"{per_second(rate_rps)}, random arrivals", USUAL_TRIALS + number)
            duration_s = float(self._plan.duration_s)
            enough_s = min(_ENOUGH_REQUESTS / rate_rps, LONGER * duration_s)
            lasts_s = max(duration_s, enough_s, _FEWEST_REQUESTS / rate_rps)
            try:
                latency_s = watched.offer(rate_rps, lasts_s, number, arrivals="poisson").summary["latency_s"]
            except StoppedError:
                break
            found |= {f"p50_s_at_{name}": latency_s["p50"], f"p99_s_at_{name}": latency_s["p99"]}
        return found

    def _table(self, found: Sustained, watched: Watched) -> list[dict[str, Any]]:
        """Return a row for each trial of the search: what it showed, and what the server spent on it."""
        return [
            {
                "workers": self._workers,
                "rate_rps": trial.rate,
                "requests": trial.requests,
                "ok": seen.ok,
                "good": trial.good,
                "missed": ", ".join(trial.missed),
                "flags": trial.flags,
                "throughput_rps": trial.throughput,
                "p50_s": _or_nan(trial.latency_s["p50"]),
                "p99_s": _or_nan(trial.latency_s["p99"]),
                "cpu_s": seen.cpu_s,
                "generator_cpu_s": seen.generator_cpu_s,
                "others_cpu": seen.others_cpu,
            }
            for trial, seen in zip(found.trials, watched.seen, strict=False)
        ]

    def _tell_trial(self, trial: RateTrial, trials: Sequence[RateTrial]) -> None:
        verdict = "is not believed" if trial.flags else "held" if trial.good else "is too much"
        self._tell(f"trial {len(trials)}, {per_second(trial.rate)} {verdict}", len(trials))

    def _tell(self, doing: str, trials: int) -> None:
        what = counted(self._workers, "worker") if self._workers else "the running server"
        mine = min(trials / (USUAL_TRIALS + 2), 0.99) / len(self._plan.counts())
        self._line.show(f"{what}: {doing}", self._share + mine)


def _row(frame: pd.DataFrame) -> Sized:
    """Return what a kept row says; nan, and a missing value, is None."""
    values = {name: frame[name].iloc[0] for name in Sized.__dataclass_fields__}
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    known: dict[str, Any] = {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in plain.items()
    }
    for name in ("workers", "processes"):
        known[name] = None if known[name] is None else int(known[name])
    return Sized(**known)


def _allowed(slos: Sequence[Slo]) -> float:
    """Return the share of requests that may fail."""
    return 1 - min(slo.limit for slo in slos if slo.name == "success")


def _most(bounds: Sequence[Sequence[Seen]]) -> float | None:
    """Return the mean of what others used in a bound's trials, of the bound where it was more."""
    means = [float(np.mean([seen.others_cpu for seen in trials])) for trials in bounds if trials]
    return max((mean for mean in means if math.isfinite(mean)), default=None)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
