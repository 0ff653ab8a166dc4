"""The search for the highest share of their own limits that servers sustain, side by side.

A machine that others use too changes its speed from one trial to the next, and with it the rate that a server
sustains; which share of its own limit (`plan.share_of_limit`) that is, it does not change. So a trial counts
at its own utilisation, with latency in its own loops; and servers take turns, so that all of them meet the
machine at the same speeds. It also changes its speed within a trial, by more in one hour than in another: so
latency counts as if it had not (`steadied`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lab.flags import in_words
from lab.load.report import Slo
from lab.load.summary import latency_of
from lab.models.simulation import waits
from lab.study.rate_search import UNSEEN, Judge, Offer, RateTrial, why
from lab.study.trial import Attacked, Measured
from lab.units import counted, per_second, percent

_FIRST = 1.1
"""The utilisation at which a search begins: in overload, which tells the limit."""

_STEP = 1.25
"""How far a search goes beyond what it has, where one side of the limit is still unknown."""

_FEWEST, _MOST = 6, 14
"""Trials of a search: believed ones, at least; and at most, flagged ones too."""

_PATIENCE = 5
"""Trials after which a search ends of which none could be believed."""

_SAME_SPEED = 1.15
"""Limits that differ by more than this factor are more than scatter: the machine changed its speed."""


@dataclass
class OwnSearch:
    """The search of one server: what loads it, its likely limit in requests/s, and its trials so far.

    `slos` are the objectives of a trial whose loops take so many seconds of CPU time.
    """

    offer: Offer
    slos: Callable[[float], Sequence[Slo]]
    duration_s: float
    arrivals: str
    workers: int
    cpus: float
    likely_rps: float
    precision: float
    trials: list[RateTrial] = field(default_factory=list)

    @property
    def limit_rps(self) -> float:
        """The server's own limit at the machine's usual speed: the geometric mean of its trials'."""
        limits = self._limits()
        return float(np.exp(np.log(limits).mean())) if limits else self.likely_rps

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """The highest utilisation that held below all failed ones; the lowest that failed above all held."""
        held, failed = self._told(good=True), self._told(good=False)
        lower = [share for share in held if share < min(failed, default=math.inf)]
        upper = [share for share in failed if share > max(held, default=0.0)]
        return max(lower, default=None), min(upper, default=None)

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """Both ends, as much further apart as their trials cannot see."""
        lower, upper = self.ends
        blurs = [trial.blur for trial in self._believed()]
        blur = max(UNSEEN, float(np.median(blurs))) if blurs else UNSEEN
        return lower and lower * (1 - blur), upper and upper * (1 + blur)

    @property
    def bounds_rps(self) -> tuple[float | None, float | None]:
        """Both bounds in requests/s, further apart by two standard errors of the usual limit."""
        logs = np.log(self._limits())
        error = math.exp(2 * float(logs.std(ddof=1)) / math.sqrt(len(logs))) if len(logs) > 1 else 1.0
        lower, upper = self.bounds
        return lower and lower * self.limit_rps / error, upper and upper * self.limit_rps * error

    @property
    def is_over(self) -> bool:
        """Whether the bounds are near enough, or no more trials are worth it."""
        believed = self._believed()
        if self._hopeless() or not (believed or len(self.trials) < _PATIENCE):
            return True
        settled = len(believed) >= _FEWEST and self._is_near() and self._unconfirmed() is None
        return settled or len(self.trials) >= _MOST

    @property
    def reason(self) -> str:
        """Why a bound is missing, or is not confirmed."""
        lower, upper = self.ends
        if failed := self._hopeless():
            return f"even {per_second(failed[-1].rate)} is too much: {why(failed[-1])}"
        flagged = [trial for trial in self.trials if trial.flags]
        if flagged and len(self._believed()) < _FEWEST:
            return f"{len(flagged)} of {counted(len(self.trials), 'trial')} are flagged: " + in_words(
                flagged[-1].flags
            )
        if lower is None:
            least = min(self._believed(), key=lambda trial: trial.utilisation or 0.0)
            return f"even {percent(least.utilisation or 0.0)} of its own limit is too much: {why(least)}"
        return "" if upper is not None else f"it was offered at most {percent(lower)} of its own limit"

    @property
    def consistent(self) -> bool:
        """Whether the machine kept its speed: the limits of most trials agree."""
        if not (limits := self._limits()):
            return True
        low, high = np.quantile(limits, [0.1, 0.9])
        return bool(high / low <= _SAME_SPEED)

    def measure(self) -> None:
        """Offer the next load, and keep the trial."""
        rate_rps = self._next() * self.limit_rps
        offered = steadied(self.offer(rate_rps, self.duration_s, len(self.trials)), self.workers, self.cpus)
        loop_s = offered.summary["service_cpu_s"]["mean"] or offered.summary["service_s"]["mean"]
        slos = self.slos(loop_s or 1 / self.likely_rps)
        self.trials.append(Judge(slos, self.arrivals, self.workers, self.cpus).judged(offered, rate_rps))

    def _next(self) -> float:
        """Return the utilisation to aim at: the middle of the widest gap, or an end to be confirmed."""
        lower, upper = self.ends
        if lower is None and upper is None:
            return _FIRST
        if upper is None:
            return _STEP * (lower or _FIRST)
        if lower is None:
            return upper / _STEP
        if self._is_near() and (unconfirmed := self._unconfirmed()):
            return unconfirmed
        known = sorted(share for share in self._shares() if lower <= share <= upper)
        gaps = [(after - before, (before + after) / 2) for before, after in pairwise(known)]
        return max(gaps)[1]

    def _is_near(self) -> bool:
        """Say whether the ends are as near as they were asked to be."""
        lower, upper = self.ends
        return lower is not None and upper is not None and upper - lower <= self.precision * upper

    def _unconfirmed(self) -> float | None:
        """Return an end that but one trial tells: another disturbance would have said the same."""
        for end, good in zip(self.ends, (True, False), strict=True):
            alike = [share for share in self._told(good=good) if abs(share - (end or 0.0)) <= 0.1]
            if end and len(alike) < 2:
                return end
        return None

    def _hopeless(self) -> list[RateTrial]:
        """Return trials in which nothing was answered well: no other rate will do."""
        return [one for one in self._believed() if not one.throughput or one.utilisation is None]

    def _limits(self) -> list[float]:
        """Return what each trial says of the server's own limit, in requests/s."""
        return [trial.rate / trial.utilisation for trial in self._believed() if trial.utilisation]

    def _believed(self) -> list[RateTrial]:
        return [trial for trial in self.trials if not trial.flags]

    def _shares(self) -> Iterator[float]:
        return (trial.utilisation for trial in self._believed() if trial.utilisation is not None)

    def _told(self, *, good: bool) -> list[float]:
        return [
            trial.utilisation
            for trial in self._believed()
            if trial.good is good and trial.utilisation is not None
        ]


def in_turns(searches: Sequence[OwnSearch], on_trial: Callable[[OwnSearch], None]) -> None:
    """Measure until all searches are over: in each round, each that is not has a trial."""
    while going := [search for search in searches if not search.is_over]:
        for search in going:
            search.measure()
            on_trial(search)


_LEAST = 0.1
"""The share of requests that take less beside their loops than what counts as the least."""


def steadied(offered: Measured, workers: int, cpus: float) -> Measured:
    """Return a load as it would have gone, had each loop taken as long as the trial's mean.

    All loops do the same work, so what makes one longer than another counts as the machine's doing: that
    excess, and how long requests wait for it. That is seen in one ideal queue of the same arrivals, in which
    each request also takes the least that any takes beside its loop: with the loops as they were, less with
    all of them alike. What remains counts as the server's: overload, idle workers, work beside the loops. A
    load whose server does not say how long its loops took stays as it is.
    """
    requests = offered.requests
    loops_s, cpu_s = requests["service_s"], requests["service_cpu_s"]
    if not loops_s.notna().any():
        return offered
    servers, busy_s = workers, loops_s
    if workers > cpus and cpu_s.notna().any():  # as `share_of_limit` counts: they are served by their CPUs
        servers = math.ceil(cpus)
        busy_s = cpu_s * servers / cpus
    due_s = requests["due_s"].to_numpy(float)
    beside_s = max(0.0, float((requests["end_s"] - requests["due_s"] - loops_s).quantile(_LEAST)))
    as_they_were, alike = busy_s.fillna(busy_s.mean()).to_numpy(float) + beside_s, busy_s.mean() + beside_s
    waited_s = waits(due_s, as_they_were, servers) - waits(due_s, alike, servers)
    longer_s = (loops_s - loops_s.mean()).fillna(0.0)
    steady = requests.assign(end_s=(requests["end_s"] - waited_s - longer_s).clip(lower=requests["due_s"]))
    return Attacked(steady, {**offered.summary, "latency_s": latency_of(steady)})
