"""The search for the highest rate that a server sustains: which rates are offered, and when a trial is good.

The search is MLRsearch (IETF draft-ietf-bmwg-mlrsearch), by the library of its authors: it guesses from what
an overloaded server answers, bisects in log rate, and measures each bound until its trials agree. Our part is
what a trial is, and when it is good. A flagged trial is no evidence, and is repeated: a rate
at which none is believed is no bound, and a machine that others keep disturbing ends the search.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab.flags import Flag, in_words
from lab.load.report import Slo
from lab.study.plan import share_of_limit
from lab.study.trial import Measured
from lab.units import counted, per_second, seconds

if TYPE_CHECKING:
    from MLRsearch import MeasurementResult

BACKLOG = "backlog"
"""What a trial misses whose latency grows as it goes on, however short the latency still is."""

UNSEEN = 0.01
"""Seconds of latency gained per second: an overload of this share, which only a longer trial would show."""

_PARTS = 8
"""Of a trial, whose mean latencies are compared: a burst is in one or two of them, a backlog grows in all."""

_VISIBLE = 2.0
"""With Poisson arrivals of n requests, an overload below this / sqrt(n) looks like chance."""

LEAST_REQUESTS = 10
"""Of a trial whose trend says anything."""

BEYOND = 2.0
"""Times a server's likely capacity: where a search begins, in overload."""

_TRIES = 3
"""Of a rate at which the generator cannot be believed: more would show the same."""

_TRIES_DISTURBED = 5
"""Of a rate while others disturb the machine: it may become quiet again."""

OF_MACHINE = frozenset(["steal", "others_cpu"])
"""Codes of flags that say nothing about the rate."""

_TRIALS_A_BOUND = 3
_DOWN_TO = 1000.0
_PATIENCE_TRIALS = 60
_ENDLESS_S = 1e9
_UNSETTLED = "the bounds did not settle: the server or the machine kept changing its speed"


Offer = Callable[[float, float, int], Measured]
"""Offers a load: requests per second, for so many seconds, and a seed for its arrivals."""


@dataclass(frozen=True)
class RateTrial:
    """One rate, offered once, as `requests`: whether the SLO was met, and if not, what was `missed`.

    `share_of_limit` is that of the throughput: near 1, every worker was busy all the time. `utilisation` is
    that of the offered rate: above 1, they were offered more than they could do. Both are None where the
    server does not say its service times, as are `service_s` and `service_cpu_s`, their means. `blur` is how
    far off the mean may be that the shares count, as a share of it: two standard errors. `latency_s` is what
    clients got; `steady_s` is what counted, if that was latency as it would have been at a steady speed.
    """

    rate: float
    requests: int
    good: bool
    missed: tuple[str, ...]
    flags: tuple[Flag, ...]
    throughput: float
    service_s: float | None
    service_cpu_s: float | None
    share_of_limit: float | None
    utilisation: float | None
    blur: float
    latency_s: Mapping[str, float | None]
    generator: Mapping[str, float | None]
    steady_s: Mapping[str, float | None] | None = None


class _DisturbedError(Exception):
    """The machine was disturbed for as long as it was worth waiting."""


class _UnsettledError(Exception):
    """A search has taken more trials than one that settles."""


@dataclass(frozen=True)
class Judge:
    """Says whether a trial was good: it meets the SLOs, and its latency does not grow.

    Without a number of `workers`, it is that of the processes that have answered; they share `cpus`.
    """

    slos: Sequence[Slo]
    arrivals: str
    workers: int | None = None
    cpus: float = math.inf

    def judged(self, offered: Measured, rate_rps: float) -> RateTrial:
        """Judge a load that was offered."""
        summary = offered.summary
        missed = [slo.name for slo in self.slos if slo.missed(summary)]
        done, offered_share = (self.share(summary, rate) for rate in (summary["throughput"], rate_rps))
        # more than the workers' own service times allow, though it is too little to be seen to grow
        over = done is not None and offered_share is not None and done <= 1 < offered_share
        if over or _grows(offered.requests, self.arrivals) or _ends_late(offered.requests, self.slos):
            missed.append(BACKLOG)
        flags = tuple(map(Flag.from_dict, summary["flags"]))
        return RateTrial(
            rate=rate_rps,
            requests=summary["planned"],
            good=not missed and not flags,
            missed=tuple(missed),
            flags=flags,
            throughput=summary["throughput"],
            service_s=summary["service_s"]["mean"],
            service_cpu_s=summary["service_cpu_s"]["mean"],
            share_of_limit=done,
            utilisation=offered_share,
            blur=self._blur(offered),
            latency_s=dict(summary["latency_s"]),
            generator={
                "cpu_s": summary["generator"]["cpu_s"],
                "send_lag_p99_s": summary["send_lag_s"]["p99"],
            },
        )

    def share(self, summary: Mapping[str, Any], rate_rps: float) -> float | None:
        """Return a rate as a share of the own limit, where the server says its service times."""
        service_s, cpu_s = (summary[name]["mean"] for name in ("service_s", "service_cpu_s"))
        workers = self.workers or len(summary["workers"])
        if service_s is None or not workers:
            return None
        return float(share_of_limit(rate_rps, service_s, cpu_s or math.nan, workers, self.cpus))

    def _blur(self, offered: Measured) -> float:
        """Return two standard errors of the mean that shares count, as a share of it; 0 if it is not said."""
        service_s, cpu_s = (offered.requests[name] for name in ("service_s", "service_cpu_s"))
        workers = self.workers or max(1, len(offered.summary["workers"]))
        known = np.isfinite(service_s)  # a server may say that its loop took for ever
        shares = pd.Series(share_of_limit(1.0, service_s[known], cpu_s[known], workers, self.cpus))
        if len(shares) < 2 or not shares.mean():
            return 0.0
        return float(2 * shares.std() / shares.mean() / math.sqrt(len(shares)))


class Search:
    """Measures for MLRsearch, and keeps every trial: `offer` is what a server's load is made with."""

    def __init__(
        self,
        offer: Offer,
        slos: Sequence[Slo],
        *,
        duration_s: float,
        arrivals: str,
        workers: int | None = None,
        cpus: float = math.inf,
        on_trial: Callable[[RateTrial, Sequence[RateTrial]], None] | None = None,
    ) -> None:
        self._offer = offer
        self._judge = Judge(slos, arrivals, workers, cpus)
        self._duration_s = duration_s
        self._on_trial = on_trial
        self.trials: list[RateTrial] = []

    def run(
        self, guess_rps: float, max_rps: float, precision: float
    ) -> tuple[float | None, float | None, str]:
        """Return the bounds, and why one is missing. The search begins at the guess, which overloads."""
        top_rps = min(guess_rps, max_rps)
        while True:
            try:
                lower_rps, upper_rps = self._bounds(top_rps, precision)
            except _DisturbedError as error:
                return *self._believed(), str(error)
            except _UnsettledError:
                return None, None, _UNSETTLED
            if upper_rps is not None or top_rps >= max_rps:
                return self._told(lower_rps, upper_rps, max_rps)
            top_rps = min(2 * BEYOND * top_rps, max_rps)

    def so_far(self) -> tuple[float | None, float | None, str]:
        """Return what the trials until now say: as `run` does, but no bound is confirmed."""
        return *self._believed(), f"interrupted after {counted(len(self.trials), 'trial')}"

    def _believed(self) -> tuple[float | None, float | None]:
        """Return the bounds by every trial that can be believed."""
        held, failed = classified(self.trials)
        upper_rps = min(failed, default=None)
        return max((rate for rate in held if upper_rps is None or rate < upper_rps), default=None), upper_rps

    def _bounds(self, top_rps: float, precision: float) -> tuple[float | None, float | None]:
        from MLRsearch import Config, MultipleLossRatioSearch, SearchGoal  # takes a second to import

        goal = SearchGoal(
            loss_ratio=0.0, exceed_ratio=0.5, relative_width=nearer(precision),
            initial_trial_duration=self._duration_s, final_trial_duration=self._duration_s,
            duration_sum=_TRIALS_A_BOUND * self._duration_s, preceding_targets=1, fail_fast=False,
        )  # fmt: skip
        fewest = LEAST_REQUESTS if self._judge.arrivals == "poisson" else 1  # fewer might be none
        least_rps = min(max(top_rps / _DOWN_TO, fewest / self._duration_s), top_rps / 2)
        config = Config()
        config.goals, config.warmup_duration = (goal,), 0.0
        config.min_load = least_rps  # first: each is checked against the other, which is vast by default
        config.max_load = top_rps
        config.search_duration_max = _ENDLESS_S  # what a slow start takes is no sign of indecision
        found = MultipleLossRatioSearch(config).search(_Measurer(self._measured), debug=_say_nothing)[goal]
        lower, upper = found.relevant_lower_bound, found.relevant_upper_bound
        return lower and float(lower), upper and float(upper)

    def _measured(self, rate_rps: float, duration_s: float) -> RateTrial:
        if len(self.trials) >= _PATIENCE_TRIALS:
            raise _UnsettledError
        if unbelieved := self._unbelieved(rate_rps):
            return unbelieved
        for tried in range(1, _TRIES_DISTURBED + 1):
            trial = self._judge.judged(self._offer(rate_rps, duration_s, len(self.trials)), rate_rps)
            self.trials.append(trial)
            if self._on_trial:
                self._on_trial(trial, self.trials)
            disturbed = any(flag.code in OF_MACHINE for flag in trial.flags)
            if not trial.flags or (tried >= _TRIES and not disturbed):
                return trial
        times = counted(_TRIES_DISTURBED, "trial")
        raise _DisturbedError(f"others disturbed {times} of {per_second(rate_rps)}: {in_words(trial.flags)}")

    def _unbelieved(self, rate_rps: float | None) -> RateTrial | None:
        """Return the last try of a rate if none could be believed."""
        tries = [trial for trial in self.trials if trial.rate == rate_rps]
        return tries[-1] if tries and all(trial.flags for trial in tries) else None

    def _told(
        self, lower_rps: float | None, upper_rps: float | None, max_rps: float
    ) -> tuple[float | None, float | None, str]:
        if unbelieved := self._unbelieved(upper_rps):
            told = f"the load generator cannot be believed at {per_second(unbelieved.rate)}: "
            above = [rate for rate in classified(self.trials)[1] if rate > (lower_rps or 0.0)]
            return lower_rps, min(above, default=None), told + in_words(unbelieved.flags)
        if lower_rps is None:
            bad = [trial for trial in self.trials if not trial.good]
            last = min(bad, key=lambda trial: (bool(trial.flags), trial.rate))
            return None, upper_rps, f"even {per_second(last.rate)} is too much: {why(last)}"
        if upper_rps is None:
            return lower_rps, None, f"the search ended at {per_second(max_rps)}, which is sustained"
        return lower_rps, upper_rps, ""


def usual_blur(trials: Sequence[RateTrial]) -> float:
    """Return how far their shares may be off: by an overload too small to see, or by chance."""
    return max(UNSEEN, float(np.median([trial.blur for trial in trials]))) if trials else UNSEEN


def nearer(precision: float) -> float:
    """Return how far apart the ends may be of bounds that are wider by what their trials cannot see."""
    return max(precision - 2 * UNSEEN, precision / 2)


class _Measurer:
    """An `MLRsearch.AbstractMeasurer`: says which share of a trial's load was too much, 0 for a good one."""

    def __init__(self, measured: Callable[[float, float], RateTrial]) -> None:
        self._measured = measured

    def measure(self, intended_duration: float, intended_load: float) -> "MeasurementResult":
        """Measure a trial."""
        from MLRsearch import MeasurementResult

        trial = self._measured(intended_load, intended_duration)
        offered = max(1, round(intended_load * intended_duration))
        too_many = math.ceil(offered * max(0.0, 1 - trial.throughput / intended_load))
        lost = 0 if trial.good else min(max(1, too_many), offered)
        return MeasurementResult(intended_duration, intended_load, offered_count=offered, loss_count=lost)


def _grows(requests: pd.DataFrame, arrivals: str) -> bool:
    """Say whether latency grows through a trial by more than chance, and more than a sound server's does."""
    due_s = requests["due_s"].to_numpy(np.float64)
    latency_s = requests["end_s"].to_numpy(np.float64) - due_s
    ended = np.isfinite(latency_s)
    if np.count_nonzero(ended) < LEAST_REQUESTS:
        return False
    parts = np.array_split(np.flatnonzero(ended), _PARTS)
    at_s, late_s = (np.array([np.mean(values[part]) for part in parts]) for values in (due_s, latency_s))
    (growth, _), errors = np.polyfit(at_s, late_s, 1, cov=True)
    bursts = _VISIBLE * math.sqrt(errors[0, 0])
    chance = _VISIBLE / math.sqrt(len(due_s)) if arrivals == "poisson" else 0.0
    return bool(growth > max(UNSEEN, chance, bursts))


def _ends_late(requests: pd.DataFrame, slos: Sequence[Slo]) -> bool:
    """Say whether the last answer came later after the last sending than any latency may be."""
    limits_s = [slo.limit for slo in slos if slo.name != "success"]
    late_s = requests["end_s"].max() - requests["sent_s"].max()
    return bool(limits_s and late_s > max(limits_s))


def classified(trials: Sequence[RateTrial]) -> tuple[list[float], list[float]]:
    """Return the rates at which most trials, flagged ones left out, were good, and at which they were bad."""
    votes: defaultdict[float, list[bool]] = defaultdict(list)
    for trial in trials:
        if not trial.flags:
            votes[trial.rate].append(trial.good)
    held = [rate for rate, good in votes.items() if 2 * sum(good) > len(good)]
    failed = [rate for rate, good in votes.items() if 2 * sum(good) < len(good)]
    return held, failed


def why(trial: RateTrial) -> str:
    """Say what a trial missed."""
    counted_s = trial.steady_s or trial.latency_s
    values = ((name, counted_s[name]) for name in trial.missed if name in counted_s)
    parts = [f"{name} is {seconds(value)}" for name, value in values if value is not None]
    if "success" in trial.missed:
        parts.append("requests fail")
    return ", ".join(parts) or "its latency keeps growing"


def _say_nothing(text: str) -> None:
    pass
