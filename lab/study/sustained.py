"""The highest rate that a server sustains under an SLO, as two bounds: the number that people come for."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Lt

from lab.cards import Card, Shown
from lab.checks import Before, Duration, Positive, Rate, Whole, checked
from lab.cpus import available_cpus
from lab.load.arrivals import Arrivals
from lab.load.attack import Result, attack
from lab.load.report import Slo
from lab.models.statistics import samples_needed
from lab.study.rate_search import BEYOND, UNSEEN, RateTrial, Search, classified
from lab.study.trial import Measured
from lab.units import bounds, counted, parse_share, per_second, percent

Precision = Annotated[Positive, Before(parse_share), Ge(0.005), Lt(1)]
"""A share, as a number or a text such as 5%."""

_FIRST_REQUESTS = 6
MOST_RPS = 100_000.0
"""Where a search ends: no server that it was made for sustains more."""

_SHORT_S = 0.001
"""Between the due times of requests that wait for one another: short, so that none waits to be due."""

_SAME_SPEED = 1.15
"""A loop that takes this many times longer is more than a server's scatter: the machine's speed changed."""


@dataclass(frozen=True, repr=False)
class Sustained(Shown):
    """The rates between which the highest sustained one lies, in requests per second.

    `held_rps` and `failed_rps` are the rates whose trials said so. `lower_rps` and `upper_rps` lie as much
    further apart as those trials could not see. A bound that does not exist is None, and `reason` says why;
    or why the search ended early, with the bounds that it had found by then.
    """

    url: str
    slos: tuple[Slo, ...]
    arrivals: str
    held_rps: float | None
    failed_rps: float | None
    reason: str
    trials: tuple[RateTrial, ...]

    def __repr__(self) -> str:
        return f"<Sustained: {bounds(self.lower_rps, self.upper_rps, per_second)}>"

    def _card(self) -> Card:
        share, flagged = self.share_of_limit, sum(bool(trial.flags) for trial in self.trials)
        told = {} if share is None else {"of the own limit": f"{percent(share)} at the lower bound"}
        reason = {"but": self.reason} if self.reason else {}
        return Card(
            f"Sustained: {bounds(self.lower_rps, self.upper_rps, per_second)}",
            {"server": self.url, "SLO": ", ".join(map(str, self.slos)), "arrivals": self.arrivals}
            | {"trials": f"{counted(len(self.trials), 'trial')}, {flagged} flagged", **told, **reason},
        )

    @property
    def lower_rps(self) -> float | None:
        """The lower bound."""
        return None if self.held_rps is None else self.held_rps * max(0.0, 1 - self._blur(self.held_rps))

    @property
    def upper_rps(self) -> float | None:
        """The upper bound."""
        return None if self.failed_rps is None else self.failed_rps * (1 + self._blur(self.failed_rps))

    @property
    def share_of_limit(self) -> float | None:
        """The median share of the own limit where the rate held."""
        return _median(trial.share_of_limit for trial in self._at(self.held_rps) if trial.good)

    @property
    def utilisation(self) -> tuple[float | None, float | None]:
        """Both bounds as own utilisation: the same on a machine that changed its speed."""
        held, failed = (
            _median(trial.utilisation for trial in self._at(rate))
            for rate in (self.held_rps, self.failed_rps)
        )
        return (
            held and held * max(0.0, 1 - self._blur(self.held_rps)),
            failed and failed * (1 + self._blur(self.failed_rps)),
        )

    @property
    def requests_wanting(self) -> int:
        """How many requests a trial at the lower bound lacks to tell its percentiles with 95 % confidence."""
        at_lower = [trial.requests for trial in self._at(self.held_rps)]
        shares = [int(slo.name[1:]) / 100 for slo in self.slos if slo.name[1:].isdecimal()]
        needed = max((samples_needed(share) for share in shares), default=0)
        return max(0, needed - min(at_lower)) if at_lower else 0

    @property
    def speed_change(self) -> float | None:
        """How many times more CPU time the loop took at one bound than at the other."""
        at_bounds = [
            _median(trial.service_cpu_s for trial in self._at(rate))
            for rate in (self.held_rps, self.failed_rps)
        ]
        known = [cpu_s for cpu_s in at_bounds if cpu_s]
        return max(known) / min(known) if len(known) == 2 else None

    @property
    def consistent(self) -> bool:
        """Whether every rate that held is below every one that failed, at one speed of the machine."""
        held, failed = classified(self.trials)
        ordered = max(held, default=0.0) < min(failed, default=math.inf)
        return ordered and (self.speed_change or 1.0) <= _SAME_SPEED

    def _at(self, rate_rps: float | None) -> list[RateTrial]:
        """Return the trials of one rate that can be believed."""
        return [trial for trial in self.trials if trial.rate == rate_rps and not trial.flags]

    def _blur(self, rate_rps: float | None) -> float:
        """Return how far a rate may be off, as a share: by an overload too small to see, or by chance."""
        return max(UNSEEN, _median(trial.blur for trial in self._at(rate_rps)) or 0.0)

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
            "share_of_limit": self.share_of_limit,
            "utilisation": self.utilisation,
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

    A rate is sustained if a trial of `duration` meets every objective in `slo` and its latency does not grow;
    each bound has the vote of two trials of three, unless the search ended early, as its `reason` then says.
    The bounds are about `precision` apart, as a share of the upper; more where service times scatter. The
    search stops at `max_rate`. `options` are those of `attack`, such as `keepalive`, `timeout`, `generators`,
    `remote`. `on_trial` hears of each trial, and of all until then.

    Raises UsageError for what makes no sense, LabError if the server cannot be reached, Interrupted.
    """
    slos = Slo.parse_all(slo)

    def offer(rate_rps: float, duration_s: float, number: int) -> Measured:
        return attack(
            url, rate=rate_rps, duration=duration_s, arrivals=arrivals, seed=seed + number, **options
        )

    one_s = took_s(one_at_a_time(url, _FIRST_REQUESTS, options))
    search = Search(offer, slos, duration_s=duration, arrivals=arrivals, on_trial=on_trial)
    guess_rps = BEYOND * available_cpus() / one_s if one_s > 0 else 1 / duration
    try:
        found = search.run(guess_rps, max_rate or MOST_RPS, precision)
    except KeyboardInterrupt:
        early = Sustained(url, tuple(slos), arrivals, *search.so_far(), tuple(search.trials))
        raise Interrupted(early) from None
    return Sustained(url, tuple(slos), arrivals, *found, tuple(search.trials))


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


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
