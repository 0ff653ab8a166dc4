"""A server of known capacity, simulated: what a search must find; and attacks that are always believed."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from helpers.load_rows import GENERATOR

from lab.load.arrivals import Stage, due_times
from lab.load.attack import summarized
from lab.load.log import Outcome
from lab.load.records import to_frame
from lab.models.simulation import Dispatch, waits
from lab.study.trial import Attacked, Measured


@dataclass
class Simulated:
    """A server of known capacity: `workers` that take `loop_s` each, give or take `noise`, from one queue."""

    loop_s: float = 0.0128
    workers: int = 2
    noise: float = 0.2
    slower: float = 1.0
    """How many times longer each attack takes than the one before."""
    wanders: float = 0.0
    """By how much faster or slower each attack is than the one before, as the deviation of a factor."""
    wobble: float = 0.0
    """By which share the machine is slower, then faster, within each half second."""
    beside_s: float = 0.0
    """What each request takes beside its loop."""
    dispatch: Dispatch = "central"
    believed_rps: float = float("inf")
    fails: bool = False
    tells: bool = True
    """Whether it says how long its loops took, and which worker did them."""
    arrivals: str = "constant"
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    rates: list[float] = field(default_factory=list)
    pace: float = 1.0
    """How many times longer than usual the machine now takes."""

    @property
    def capacity_rps(self) -> float:
        return self.workers / self.loop_s

    def __call__(self, rate_rps: float, duration_s: float, seed: int) -> Attacked:
        self.rates.append(rate_rps)
        due_s = due_times([Stage(rate_rps, rate_rps, duration_s)], self.arrivals, seed)
        if self.wanders:
            self.pace = float(np.clip(self.pace * self.random.lognormal(sigma=self.wanders), 0.7, 1.4))
        mean_s = self.loop_s * self.pace * self.slower ** len(self.rates)
        speeds = 1 + self.wobble * np.sin(2 * np.pi * due_s / 0.5)
        service_s = mean_s * speeds * self.random.normal(1, self.noise, len(due_s)).clip(0.2)
        took_s = service_s + self.beside_s
        start_s = due_s + waits(due_s, took_s, self.workers, self.dispatch)
        outcome = Outcome.HTTP_ERROR if self.fails else Outcome.OK
        log: dict[str, Any] = {
            "sent_s": due_s,
            "end_s": start_s + took_s,
            "service_s": service_s if self.tells else np.full(len(due_s), np.nan),
            "service_cpu_s": service_s if self.tells else np.full(len(due_s), np.nan),
            "outcome": np.full(len(due_s), outcome, np.uint8),
            "status": np.full(len(due_s), 500 if self.fails else 200, np.uint16),
            "worker": (self.tells + np.arange(len(due_s)) % self.workers * self.tells).astype(np.int32),
            "bytes_in": np.full(len(due_s), 34),
        }
        lag_s = 1.0 if rate_rps > self.believed_rps else 0.0
        result = summarized(
            to_frame(due_s, log), warmup_errors={}, url="", arrivals=self.arrivals, rate=rate_rps,
            duration_s=duration_s, generator=GENERATOR | {"lag_p99_s": lag_s},
        )  # fmt: skip
        return Attacked(result.requests, result.summary)


def attacked(server: Simulated) -> Callable[..., Attacked]:
    """Return what stands in for `attack`, on this server."""

    def attack(url: str, *, rate: float, duration: float, seed: int = 0, **options: Any) -> Attacked:
        if options.get("in_flight") == 1:  # each is sent when the one before is answered
            random = np.random.default_rng(seed)
            alone = replace(server, rates=[], arrivals="constant", random=random, believed_rps=math.inf)
            return alone(0.1 / server.loop_s, rate * duration * server.loop_s / 0.1, seed)
        return server(rate, duration, seed)

    return attack


def believed(attack: Callable[..., Measured]) -> Callable[..., Attacked]:
    """Return the attack without its flags, which a neighbour's burst may raise in any test."""

    def unflagged(*args: Any, **options: Any) -> Attacked:
        result = attack(*args, **options)
        return Attacked(result.requests, {**result.summary, "flags": []})

    return unflagged
