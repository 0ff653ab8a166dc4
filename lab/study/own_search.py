"""The search for the highest share of their own limits that servers sustain, side by side.

A machine that others use too changes its speed from one trial to the next, and with it the rate that a server
sustains; which share of its own limit (`plan.share_of_limit`) that is, it does not change. So a trial counts
at its own utilisation; and servers take turns, so that all of them meet the machine at the same speeds. It
also changes its speed within a trial, by more in one hour than in another. So latency counts as if it had
kept the speed that it had in most trials (`steadied`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from lab.flags import in_words
from lab.load.report import Slo
from lab.load.summary import latency_of
from lab.models.simulation import waits
from lab.study.rate_search import (
    BACKLOG,
    BEYOND,
    LEAST_REQUESTS,
    OF_MACHINE,
    UNSEEN,
    Judge,
    Offer,
    RateTrial,
    usual_blur,
    why,
)
from lab.study.trial import Attacked, Measured
from lab.units import counted, per_second, percent

_FIRST = 1.1
"""The utilisation at which a search begins: in overload, which tells the limit."""

_STEP = 1.25
"""How far a search goes beyond what it has, where one side of the limit is still unknown."""

_LOWEST = 0.05
"""Of the highest throughput: at lower rates, hardly a request waits for another, and none is faster."""

_FEWEST, _MOST = 6, 12
"""Trials of a search: believed ones, at least; and at most, flagged ones too."""

_ALIKE = 0.1
"""By how much trials may differ, as a share of an end, to confirm each other's verdict."""

_PATIENCE, _TRIES = 5, 3
"""Trials after which a search ends of which none could be believed; after which it tries lower rates."""

_LATELY = 3
"""Trials that tell the speed of the machine in the next one."""

_ALL_BUSY = 0.95
"""Of the loops that run at once, on average: they take at least so many workers, however they are counted."""

_WELL_BELOW = 0.9
"""Times the highest throughput, as shares: an overload is above."""

_SAME_SPEED = 1.15
"""Limits that differ by more than this factor are more than scatter: the machine changed its speed."""


@dataclass
class OwnSearch:
    """The search of one server: what loads it, its likely limit in requests/s, and its trials so far.

    `slos` are the objectives of a trial whose loops take so many seconds of CPU time. Without a number of
    `workers`, it is as many as the trials have shown by then: all are judged anew after each. `most_rps` is
    the highest rate to offer.
    """

    offer: Offer
    slos: Callable[[float], Sequence[Slo]]
    duration_s: float
    arrivals: str
    workers: int | None
    cpus: float
    likely_rps: float
    precision: float
    most_rps: float = math.inf
    trials: list[RateTrial] = field(default_factory=list)
    _loads: list[tuple[float, Measured]] = field(default_factory=list)

    @property
    def limit_rps(self) -> float:
        """The server's own limit at the machine's usual speed: the geometric mean of its trials'."""
        return self.known_limit_rps or self.likely_rps

    @property
    def known_limit_rps(self) -> float | None:
        """That limit, None before a trial has told it."""
        return _mean(self._limits())

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """The highest utilisation that held, and the lowest that failed, on both sides of the limit.

        The limit is where it contradicts the fewest trials; if several places do, all lie between the ends.
        """
        told = self._told()
        fits = np.cumsum([0, *(1 if good else -1 for _, good in told)])
        (best,) = np.nonzero(fits == fits.max())
        lower, upper = told[: best[0]], told[best[-1] :]
        return lower[-1][0] if lower else None, upper[0][0] if upper else None

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """Both ends, as much further apart as their trials cannot see."""
        (lower, upper), blur = self.ends, self._blur()
        return lower and lower * (1 - blur), upper and upper * (1 + blur)

    @property
    def ends_rps(self) -> tuple[float | None, float | None]:
        """Both ends in requests/s, at the usual speed."""
        lower, upper = self.ends
        return lower and min(lower * self.limit_rps, self.most_rps), upper and upper * self.limit_rps

    @property
    def bounds_rps(self) -> tuple[float | None, float | None]:
        """Both bounds in requests/s, further apart by two standard errors of the usual limit."""
        logs = np.log(self._limits())
        error = math.exp(2 * float(logs.std(ddof=1)) / math.sqrt(len(logs))) if len(logs) > 1 else 1.0
        (lower, upper), blur = self.ends_rps, self._blur()
        return lower and lower * (1 - blur) / error, upper and upper * (1 + blur) * error

    @property
    def is_over(self) -> bool:
        """Whether the bounds are near enough, or no more trials are worth it."""
        believed = self._believed()
        if self._hopeless() or not (believed or len(self.trials) < _PATIENCE):
            return True
        if self._holds_the_most() or self._fails_the_least():
            return True
        enough = len(believed) >= _FEWEST or self._beyond_belief() is not None
        return (enough and self._is_near() and self._unconfirmed() is None) or len(self.trials) >= _MOST

    @property
    def reason(self) -> str:
        """Why a bound is missing, or is not confirmed."""
        lower, upper = self.ends
        if failed := self._hopeless():
            return f"even {per_second(failed[-1].rate)} is too much: {why(failed[-1])}"
        if self._holds_the_most():
            return f"the search ended at {per_second(self.most_rps)}, which is sustained"
        if spoilt := self._beyond_belief():
            return f"the load generator cannot be believed at {per_second(spoilt.rate)}: " + in_words(
                spoilt.flags
            )
        believed, flagged = self._believed(), [trial for trial in self.trials if trial.flags]
        if flagged and len(believed) < _FEWEST and not self._fails_the_least():
            return f"{len(flagged)} of {counted(len(self.trials), 'trial')} are flagged: " + in_words(
                flagged[-1].flags
            )
        if lower is None:
            least = min(believed, key=lambda trial: trial.utilisation or 0.0)
            return f"even {per_second(least.rate)} is too much: {why(least)}"
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
        rate_rps = min(max(self._next() * self._limit_now(), self._least_rps()), self.most_rps)
        self._loads.append((rate_rps, self.offer(rate_rps, self.duration_s, len(self._loads))))
        self.trials = self._judged()

    def _judged(self) -> list[RateTrial]:
        """Judge each trial anew: by as many workers as have shown by now, at what is now the usual speed."""
        workers = self.workers or max(_at_work(load) for _, load in self._loads)
        judge = Judge((), self.arrivals, workers, self.cpus)
        shares = [judge.share(load.summary, 1.0) for _, load in self._loads]
        limits_rps = [1 / share if share else None for share in shares]
        usual_rps = _mean(
            [
                limit_rps
                for limit_rps, (_, load) in zip(limits_rps, self._loads, strict=True)
                if limit_rps and not load.summary["flags"]
            ]
        )
        trials = [
            self._trial(*load, workers, limit_rps / usual_rps if limit_rps and usual_rps else 1.0)
            for limit_rps, load in zip(limits_rps, self._loads, strict=True)
        ]
        done = max((trial.share_of_limit or 0.0 for trial in trials if not trial.flags), default=0.0)
        return [_relieved(trial, done) for trial in trials]

    def _trial(self, rate_rps: float, load: Measured, workers: int, speed: float) -> RateTrial:
        steady = steadied(load, workers, self.cpus, speed)
        loop_s = load.summary["service_cpu_s"]["mean"] or load.summary["service_s"]["mean"]
        slos = self.slos((loop_s or 1 / self.likely_rps) * speed)
        trial = Judge(slos, self.arrivals, workers, self.cpus).judged(steady, rate_rps)
        return replace(trial, latency_s=dict(load.summary["latency_s"]), steady_s=trial.latency_s)

    def _next(self) -> float:
        """Return the utilisation to aim at: the middle of the widest gap, or an end to be confirmed."""
        lower, top = self._gap()
        if top is None:
            return _FIRST if lower is None else lower * (_STEP if self.workers else BEYOND)
        if lower is None:
            return self._below(top)
        if self._is_near() and (unconfirmed := self._unconfirmed()):
            return unconfirmed
        known = [lower, *(share for share, _ in self._told() if lower < share < top), top]
        gaps = [(after - before, (before + after) / 2) for before, after in pairwise(known)]
        return max(gaps)[1]

    def _below(self, top: float) -> float:
        """Return a utilisation below one that is too high, where none is known that is not."""
        done = self._done()
        if done and top > _STEP * _FIRST * done:  # far beyond what was done in overload
            return _FIRST * done
        failed = [share for share, good in self._told() if not good]
        return top / (_STEP if 0 < len(failed) < _TRIES else BEYOND)

    def _gap(self) -> tuple[float | None, float | None]:
        """Return the ends; instead of an unknown upper one, where the load generator ends, if it does."""
        lower, upper = self.ends
        spoilt = self._beyond_belief()
        return lower, spoilt.rate / self._limit_now() if spoilt else upper

    def _is_near(self) -> bool:
        """Say whether the ends are as near as they were asked to be."""
        lower, top = self._gap()
        return lower is not None and top is not None and top - lower <= self.precision * top

    def _unconfirmed(self) -> float | None:
        """Return an end that but one trial tells: another disturbance would have said the same."""
        lower, upper = self.ends
        held = [share for share, good in self._told() if good and lower and share >= lower * (1 - _ALIKE)]
        failed = [
            share for share, good in self._told() if not good and upper and share <= upper * (1 + _ALIKE)
        ]
        return next((end for end, told in ((lower, held), (upper, failed)) if end and len(told) < 2), None)

    def _hopeless(self) -> list[RateTrial]:
        """Return trials in which nothing was answered well: no other rate will do."""
        return [one for one in self._believed() if not one.throughput or one.utilisation is None]

    def _holds_the_most(self) -> bool:
        """Say whether the highest rate that may be offered is sustained."""
        at_most = [trial.good for trial in self._believed() if trial.rate >= self.most_rps]
        return sum(at_most) > 1 and self.ends[1] is None

    def _fails_the_least(self) -> bool:
        """Say whether even a rate is too much at which a request is all but alone."""
        lower, upper = self.ends
        if lower is not None or upper is None:
            return False
        least_rps = min(trial.rate for trial in self._believed())
        return upper <= _LOWEST * self._done() or least_rps <= self._least_rps()

    def _beyond_belief(self) -> RateTrial | None:
        """Return the trial of the lowest rate from which on the load generator cannot be believed, if any.

        Three trials say so; none that could be believed had a higher rate, or was too much for the server.
        What others did to the machine is no such sign.
        """
        reached_rps = max((trial.rate for trial in self._believed()), default=0.0)
        spoilt = [
            trial
            for trial in self.trials
            if trial.rate > reached_rps and any(flag.code not in OF_MACHINE for flag in trial.flags)
        ]
        said = len(spoilt) >= _TRIES and self.ends[1] is None
        return min(spoilt, key=lambda trial: trial.rate) if said else None

    def _least_rps(self) -> float:
        """Return the lowest rate at which a trial has requests."""
        return (LEAST_REQUESTS if self.arrivals == "poisson" else 1) / self.duration_s

    def _blur(self) -> float:
        """Return what the trials cannot see: by chance, less than one alone, as several tell each end."""
        return max(UNSEEN, usual_blur(self._believed()) / 2)

    def _limits(self) -> list[float]:
        """Return what each trial says of the server's own limit, in requests/s."""
        return [trial.rate / trial.utilisation for trial in self._believed() if trial.utilisation]

    def _limit_now(self) -> float:
        """Return the limit that the next trial is likely to have."""
        return _mean(self._limits()[-_LATELY:]) or self.likely_rps

    def _done(self) -> float:
        """Return the highest throughput, as a share of the own limit."""
        return max((trial.share_of_limit or 0.0 for trial in self._believed()), default=0.0)

    def _believed(self) -> list[RateTrial]:
        return [trial for trial in self.trials if not trial.flags]

    def _told(self) -> list[tuple[float, bool]]:
        """Return the utilisation of each trial, in order, and whether it held."""
        return sorted(
            (trial.utilisation, trial.good) for trial in self._believed() if trial.utilisation is not None
        )


def _relieved(trial: RateTrial, done: float) -> RateTrial:
    """Return a trial without its backlog, if that is all it missed, well below what the server has done.

    Others that disturb the machine more and more let latency grow, too, beside the loops.
    """
    if trial.missed != (BACKLOG,) or (trial.utilisation or done) > _WELL_BELOW * done:
        return trial
    return replace(trial, missed=(), good=not trial.flags)


def _at_work(offered: Measured) -> int:
    """Return how many workers answered; more, if more loops ran at once than they could, as in threads."""
    at_once: float = offered.summary["throughput"] * (offered.summary["service_s"]["mean"] or 0.0)
    return max(1, len(offered.summary["workers"]), math.ceil(_ALL_BUSY * at_once))


def _mean(rates_rps: Sequence[float]) -> float | None:
    """Return the geometric mean, to which faster and slower are alike; None if there are none."""
    return float(np.exp(np.log(rates_rps).mean())) if len(rates_rps) else None


def in_turns(searches: Sequence[OwnSearch], on_trial: Callable[[OwnSearch], None]) -> None:
    """Measure until all searches are over: in each round, each that is not has a trial."""
    while going := [search for search in searches if not search.is_over]:
        for search in going:
            search.measure()
            on_trial(search)


_LEAST = 0.1
"""The share of requests that take less beside their loops than what counts as the least."""


def steadied(offered: Measured, workers: int, cpus: float, speed: float = 1.0) -> Measured:
    """Return a load as it would have gone, had each loop taken as long as the trial's mean, times `speed`.

    All loops do the same work, so what makes one longer than another counts as the machine's doing: that
    excess, and how long requests wait for it. That is seen in one ideal queue of the same arrivals, in which
    each request also takes the least that any takes beside its loop: with the loops as they were, less with
    all of them alike. What remains counts as the server's: overload, idle workers, work beside the loops. A
    load whose server does not say how long its loops took stays as it is.
    """
    requests = offered.requests
    due_s, sent_s, end_s, loops_s, cpu_s = (
        requests[name].to_numpy(float) for name in ("due_s", "sent_s", "end_s", "service_s", "service_cpu_s")
    )
    loops_s = np.where(np.isfinite(loops_s), loops_s, math.nan)
    if np.isnan(loops_s).all():
        return offered
    servers, busy_s = workers, loops_s
    if workers > cpus and not np.isnan(cpu_s).all():  # as `share_of_limit` counts: they are served by CPUs
        servers = math.ceil(cpus)
        busy_s = cpu_s * servers / cpus
    beside_s = max(0.0, float(np.nanquantile(end_s - due_s - loops_s, _LEAST)))
    mean_s = np.nanmean(busy_s)
    as_they_were = np.where(np.isnan(busy_s), mean_s, busy_s) + beside_s
    waited_s = waits(due_s, as_they_were, servers) - waits(due_s, mean_s + beside_s, servers)
    longer_s = np.nan_to_num(loops_s - np.nanmean(loops_s))
    ended_s = np.maximum(end_s - waited_s - longer_s, due_s)
    times = {"due_s": due_s, "sent_s": sent_s, "end_s": ended_s}
    steady = requests.assign(**{name: speed * value for name, value in times.items()})
    return Attacked(steady, {**offered.summary, "latency_s": latency_of(steady)})
