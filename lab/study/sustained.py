"""The highest rate that a server sustains under an SLO, as two bounds: the number that people come for."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Lt

from lab.cards import Card, Shown
from lab.checks import Before, Duration, Positive, Rate, Whole, checked
from lab.cpus import available_cpus, quota_cpus
from lab.load.arrivals import Arrivals
from lab.load.attack import Result, attack
from lab.load.report import Slo
from lab.models.statistics import samples_needed
from lab.study.own_search import OwnSearch
from lab.study.rate_search import BEYOND, RateTrial, Search, classified, nearer, usual_blur
from lab.study.trial import Measured
from lab.units import bounds, counted, parse_share, per_second, percent

Precision = Annotated[Positive, Before(parse_share), Ge(0.005), Lt(1)]
"""A share, as a number or a text such as 5%."""

_FIRST_REQUESTS = 6
MOST_RPS = 100_000.0
"""Where a search ends: no server that it was made for sustains more."""

_SHORT_S = 0.001
"""Between the due times of requests that wait for one another: short, so that none waits to be due."""

STEADY = "counts as if the machine had kept its speed"
"""What is said of the latency of a server that says how long its loops took."""

_WAITS = 0.2
"""A loop that uses less of its time to compute waits for something else than CPUs."""

_WORKERS = 2
"""For which a search begins in overload: for more, it goes on from there; for fewer, it drains soon."""


@dataclass(frozen=True, repr=False)
class Sustained(Shown):
    """The rates between which the highest sustained one lies, in requests per second.

    `held_rps` and `failed_rps` are the rates whose trials said so. `lower_rps` and `upper_rps` lie as much
    further apart as those trials could not see. A bound that does not exist is None, and `reason` says why;
    or why the search ended early, with the bounds that it had found by then. `shares` are both bounds as
    shares of the server's own limit, None unless it says its service times and its workers; `limit_rps` is
    that limit at the machine's usual speed. `requests` are those of a trial at the lower bound, at least. It
    is `consistent` if no rate that held is above one that failed, and the machine kept its speed.
    """

    url: str
    slos: tuple[Slo, ...]
    arrivals: str
    held_rps: float | None
    failed_rps: float | None
    lower_rps: float | None
    upper_rps: float | None
    shares: tuple[float | None, float | None]
    limit_rps: float | None
    reason: str
    consistent: bool
    requests: int
    trials: tuple[RateTrial, ...]

    @staticmethod
    def by_rates(
        url: str,
        slos: Sequence[Slo],
        arrivals: str,
        found: tuple[float | None, float | None, str],
        trials: Sequence[RateTrial],
    ) -> "Sustained":
        """Return what a `Search` found, of any server."""
        held_rps, failed_rps, reason = found
        at_held, at_failed = (
            [trial for trial in trials if trial.rate == rate_rps and not trial.flags]
            for rate_rps in (held_rps, failed_rps)
        )
        held, failed = classified(trials)
        return Sustained(
            url=url, slos=tuple(slos), arrivals=arrivals, held_rps=held_rps, failed_rps=failed_rps,
            lower_rps=held_rps and held_rps * max(0.0, 1 - usual_blur(at_held)),
            upper_rps=failed_rps and failed_rps * (1 + usual_blur(at_failed)),
            shares=(None, None), limit_rps=None, reason=reason,
            consistent=max(held, default=0.0) < min(failed, default=math.inf),
            requests=min((trial.requests for trial in at_held), default=0), trials=tuple(trials),
        )  # fmt: skip

    @staticmethod
    def by_shares(url: str, slos: Sequence[Slo], search: OwnSearch, reason: str) -> "Sustained":
        """Return what an `OwnSearch` found, and why it ended."""
        (held_rps, failed_rps), (lower_rps, upper_rps) = search.ends_rps, search.bounds_rps
        at_lower = [trial.requests for trial in search.trials if trial.utilisation == search.ends[0]]
        return Sustained(
            url=url, slos=tuple(slos), arrivals=search.arrivals, held_rps=held_rps, failed_rps=failed_rps,
            lower_rps=lower_rps, upper_rps=upper_rps, shares=search.bounds,
            limit_rps=search.known_limit_rps, reason=reason,
            consistent=search.consistent, requests=min(at_lower, default=0), trials=tuple(search.trials),
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Sustained: {bounds(self.lower_rps, self.upper_rps, per_second)}>"

    def _card(self) -> Card:
        flagged = sum(bool(trial.flags) for trial in self.trials)
        told = {} if self.shares == (None, None) else {"of the own limit": bounds(*self.shares, percent)}
        steady = {"latency": STEADY} if self.steady else {}
        reason = {"but": self.reason} if self.reason else {}
        return Card(
            f"Sustained: {bounds(self.lower_rps, self.upper_rps, per_second)}",
            {"server": self.url, "SLO": ", ".join(map(str, self.slos)), "arrivals": self.arrivals}
            | {"trials": f"{counted(len(self.trials), 'trial')}, {flagged} flagged"}
            | {**told, **steady, **reason},
        )

    @property
    def steady(self) -> bool:
        """Whether latency counted as if the machine had kept its speed."""
        return any(trial.steady_s is not None for trial in self.trials)

    @property
    def requests_wanting(self) -> int:
        """How many requests a trial at the lower bound lacks to tell its percentiles with 95 % confidence."""
        return max(0, self._requests_needed - self.requests) if self.requests else 0

    @property
    def enough_s(self) -> float:
        """How long a trial at the lower bound lasts that has them; 0 without such a bound."""
        return self._requests_needed / self.lower_rps if self.lower_rps else 0.0

    @property
    def _requests_needed(self) -> int:
        shares = [int(slo.name[1:]) / 100 for slo in self.slos if slo.name[1:].isdecimal()]
        return max((samples_needed(share) for share in shares), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Return it as `lab sustained --format json` prints it."""
        return {
            "url": self.url,
            "slo": [{"name": slo.name, "limit": slo.limit, "implied": slo.implied} for slo in self.slos],
            "arrivals": self.arrivals,
            "lower_rps": self.lower_rps,
            "upper_rps": self.upper_rps,
            "held_rps": self.held_rps,
            "failed_rps": self.failed_rps,
            "reason": self.reason or None,
            "limit_rps": self.limit_rps,
            "share_of_limit": self.shares[0],
            "utilisation": self.shares,
            "steady": self.steady,
            "consistent": self.consistent,
            "requests_wanting": self.requests_wanting,
            "generator": {
                "cpu_s": sum(trial.generator["cpu_s"] or 0.0 for trial in self.trials),
                "send_lag_p99_s": max(
                    (trial.generator["send_lag_p99_s"] or 0.0 for trial in self.trials), default=None
                ),
            },
            "trials": [asdict(trial) for trial in self.trials],
        }


@checked
def sustained(
    url: str,
    *,
    slo: Sequence[str] = ("p99=250ms",),
    precision: Precision = 0.05,
    duration: Duration = 3.0,
    max_rate: Rate | None = None,
    arrivals: Arrivals = "constant",
    seed: Whole = 0,
    on_trial: Callable[[RateTrial, Sequence[RateTrial]], None] | None = None,
    **options: Any,
) -> Sustained:
    """Search for the highest rate that the server at `url` sustains under an SLO.

    A rate is sustained if a trial of `duration` meets every objective in `slo` and its latency does not grow.
    The bounds are about `precision` apart, as a share of the upper; more where service times scatter. The
    search stops at `max_rate`. `options` are those of `attack`, such as `keepalive`, `timeout`, `generators`,
    `remote`. `on_trial` hears of each trial, and of all until then.

    Of a server that says its service times and its workers, as ours and our peers do, each trial counts at
    its own utilisation, with latency as if the machine had kept its speed. Of any other, it counts at its
    rate, and each bound has the vote of two trials of three.

    Raises UsageError for what makes no sense, LabError if the server cannot be reached, Interrupted.
    """
    slos = Slo.parse_all(slo)

    def offer(rate_rps: float, duration_s: float, number: int) -> Measured:
        return attack(
            url, rate=rate_rps, duration=duration_s, arrivals=arrivals, seed=seed + number, **options
        )

    tell = on_trial or (lambda trial, trials: None)
    first, most_rps = one_at_a_time(url, _FIRST_REQUESTS, options), max_rate or MOST_RPS
    one_s = took_s(first)
    if one_s > 0 and _says_its_work(first):
        own = OwnSearch(
            offer, lambda loop_s: slos, duration, arrivals, None, _cpus(first, options),
            _likely_rps(first), nearer(precision), most_rps,
        )  # fmt: skip
        return _by_shares(url, slos, own, tell)
    search = Search(offer, slos, duration_s=duration, arrivals=arrivals, on_trial=tell)
    guess_rps = BEYOND * available_cpus() / one_s if one_s > 0 else 1 / duration
    try:
        found = search.run(guess_rps, most_rps, precision)
    except KeyboardInterrupt:
        early = Sustained.by_rates(url, slos, arrivals, search.so_far(), search.trials)
        raise Interrupted(early) from None
    return Sustained.by_rates(url, slos, arrivals, found, search.trials)


def _by_shares(
    url: str, slos: Sequence[Slo], search: OwnSearch, tell: Callable[[RateTrial, Sequence[RateTrial]], None]
) -> Sustained:
    try:
        while not search.is_over:
            search.measure()
            tell(search.trials[-1], search.trials)
    except KeyboardInterrupt:
        early = f"interrupted after {counted(len(search.trials), 'trial')}"
        raise Interrupted(Sustained.by_shares(url, slos, search, early)) from None
    return Sustained.by_shares(url, slos, search, search.reason)


def _says_its_work(first: Result) -> bool:
    """Say whether each answer tells how long its work took, and which worker did it."""
    told = first.requests[["service_s", "worker"]]
    return bool(len(told)) and bool(((told > 0) & np.isfinite(told)).all(axis=None))


def _likely_rps(first: Result) -> float:
    """Return what two workers do, by their service times; less if requests take long beside them."""
    service_s = float(first.requests["service_s"].median())
    return min(_WORKERS, available_cpus()) * min(1 / service_s, BEYOND / took_s(first))


def _cpus(first: Result, options: Mapping[str, Any]) -> float:
    """Return how many CPUs the workers share: none that are known, if elsewhere or if they only wait."""
    service_s, cpu_s = first.summary["service_s"]["mean"], first.summary["service_cpu_s"]["mean"] or 0.0
    if options.get("remote") or cpu_s < _WAITS * service_s:
        return math.inf
    return min(quota_cpus() or math.inf, available_cpus())


def one_at_a_time(url: str, requests: int, options: Mapping[str, Any]) -> Result:
    """Send so many requests, each when the one before is answered; `options` are those of `attack`."""
    alone = {**options, "in_flight": 1, "generators": 1, "arrivals": "constant"}
    return attack(url, rate=1 / _SHORT_S, duration=requests * _SHORT_S, **alone)


def took_s(result: Result) -> float:
    """Return the median time from sending a request to its end."""
    return float((result.requests["end_s"] - result.requests["sent_s"]).median())


class Interrupted(KeyboardInterrupt):
    """A search was interrupted; `found` is what it had found by then."""

    def __init__(self, found: Sustained) -> None:
        super().__init__()
        self.found = found
