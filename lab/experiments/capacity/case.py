"""What a plan is made of: parameters, how long a request occupies a worker, and what was sustained here."""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pandas as pd
from annotated_types import Ge, Le, Lt
from numpy.typing import NDArray
from pydantic import Field, field_validator

from lab.checks import Before, Count, Positive, Seconds, Whole, number
from lab.errors import LabError
from lab.experiments import common
from lab.experiments.common import Iterations, Workers
from lab.experiments.dispatch.trials import played_as
from lab.experiments.searches import Percentile
from lab.hotloop import KernelName
from lab.models.capacity import MOST_WORKERS, Needed, highest_utilisation, service_times, workers_needed
from lab.models.simulation import Dispatch
from lab.models.statistics import Estimate
from lab.servers.spec import DispatchName
from lab.study.parameters import ListOf, RunToAddTo
from lab.study.parameters import Parameters as NotebookParameters
from lab.study.run import Run
from lab.units import counted, parse_rate, per_second, seconds

EXPERIMENT = "capacity"

_MOST_RPS = 1e11

AS_GIVEN = "as given"
"""Where a rate comes from that the notebook's reader set."""

NOBODY = "no request of the calibration was answered: there is nothing to plan with"

NEXT_TO_NOTHING = 1e-9
"""What is left of an objective, in any unit of time, if latency beside a worker takes all of it."""

Below1 = Annotated[Positive, Lt(1)]


class Parameters(NotebookParameters):
    """What notebook 09 lets its reader set.

    A rate of 0 is what the workers sustained in this run or, if its trials do not tell, should sustain.
    Service times that are given are planned with, and nothing is measured. 0 CPUs per machine are as many as
    here.
    """

    run: RunToAddTo
    rate: Annotated[float, Before(parse_rate), Ge(0), Le(_MOST_RPS)]
    slo_percentile: Percentile
    slo_loops: Positive
    dispatch: DispatchName
    headroom: Annotated[float, Before(number), Ge(0), Le(10)]
    service_s: ListOf[float]
    price_per_core_hour: Annotated[float, Before(number), Ge(0)]
    cpus_per_machine: Annotated[Whole, Le(MOST_WORKERS)]
    workers: Workers
    loads: Annotated[ListOf[Below1], Field(min_length=1)]
    duration_s: Seconds
    kernel: KernelName
    iterations: Iterations
    timeout_s: Seconds
    blocks: Count
    seed: Whole

    @property
    def objective(self) -> str:
        """The objective in words."""
        return f"p{self.slo_percentile} within {self.slo_loops:g} times the loop"

    @field_validator("service_s")
    @classmethod
    def _are_times(cls, service_s: tuple[float, ...]) -> tuple[float, ...]:
        if service_s:
            service_times(service_s)
        return service_s


IN_WORDS: dict[Dispatch, str] = {
    "batches": "a free worker takes all that wait",
    "random": "a queue per worker, by chance",
    "round-robin": "workers take turns",
    "central": "one central queue",
}


@dataclass(frozen=True)
class Sustained:
    """The own utilisation up to which so many workers met the objective under random arrivals.

    `share` is by latency as clients got it, `steady` by what it would have been at a steady speed; None if
    the trials of the run do not tell. `highest` and `steady_highest` are what theory allows for each, the
    latter `by_formula` or simulated.
    """

    workers: int
    share: Estimate | None
    highest: float
    steady: Estimate | None = None
    steady_highest: float = math.nan
    by_formula: bool = False

    def rate_rps(self, share: float, loop_s: float) -> float:
        """Return the rate that is this share of the own limit, while a loop takes `loop_s`."""
        return share * self.workers / loop_s


@dataclass(frozen=True, eq=False)
class Case:
    """Service times and what is asked of them; times in seconds.

    `service_s` is the sample at the usual speed: how long a request occupies a worker, with what it does
    beside the loop. `blocks_s` is the mean of that in each block, `loop_s` the mean of the loop alone,
    `beside_s` what of latency occupies no worker (both: the median block). `is_given` if they were not
    measured here.
    """

    service_s: NDArray[np.float64]
    blocks_s: NDArray[np.float64]
    loop_s: float
    beside_s: float
    slo_percentile: int
    slo_s: float
    queue: Dispatch
    headroom: float
    is_given: bool

    @property
    def mean_s(self) -> float:
        """The mean time that a request occupies a worker, in the median block."""
        return float(np.median(self.blocks_s))

    @property
    def overhead_s(self) -> float:
        """What of that is not the loop."""
        return self.mean_s - self.loop_s

    @property
    def variation(self) -> float:
        """The coefficient of variation of service times within blocks."""
        return float(self.service_s.std() / self.service_s.mean())

    @property
    def slo(self) -> str:
        """The objective in words."""
        return f"p{self.slo_percentile} within {seconds(self.slo_s)}"

    def speeds(self) -> dict[str, float]:
        """Return service times in the usual, the slowest and the fastest block, over the usual ones."""
        ratios = self.blocks_s / self.mean_s
        return {"usual": 1.0, "slowest": float(ratios.max()), "fastest": float(ratios.min())}

    def in_worker_s(self, slower: float = 1.0) -> float:
        """Return what the objective leaves for the wait and the worker; or next to nothing."""
        return max(self.slo_s - self.beside_s * slower, NEXT_TO_NOTHING)

    def why_impossible(self) -> str:
        """Say why no number of workers meets the objective, or ""."""
        return self.needed(1.0).why

    def needed(self, rate_rps: float, slower: float = 1.0, headroom: float | None = None) -> Needed:
        """Return the workers that a rate needs, if service times are `slower` times as long as usual."""
        found = workers_needed(
            rate_rps,
            self.service_s * slower,
            slo_quantile=self.slo_percentile / 100,
            slo_s=self.in_worker_s(slower),
            dispatch=self.queue,
            headroom=self.headroom if headroom is None else headroom,
        )
        return replace(found, why=self._with_beside(found.why, self.beside_s * slower))

    def _with_beside(self, why: str, beside_s: float) -> str:
        """Say why no number of workers is enough, with what of latency occupies none."""
        if not (why and beside_s):
            return why
        beside = f"{seconds(beside_s)} of latency are beside the worker"
        return beside if beside_s >= self.slo_s else f"{why}, as {beside}"

    def highest_rps(self, workers: int, slower: float = 1.0) -> float:
        """Return the highest rate that so many workers sustain, without headroom; 0 if none."""
        highest = highest_utilisation(
            workers,
            self.service_s * slower,
            slo_quantile=self.slo_percentile / 100,
            slo_s=self.in_worker_s(slower),
            dispatch=self.queue,
        )
        return workers * highest / (self.mean_s * slower)


def settled(p: Parameters, run: Run) -> Parameters:
    """Return the parameters with a number for "auto" iterations: a likely one if nothing will be measured."""
    return common.expected(p) if p.service_s else common.settled(p, run)


def rate_in_words(rate_rps: float) -> str:
    """Write a rate; a large one with all of its digits, as it was planned for: 1,000,000/s."""
    return per_second(rate_rps) if rate_rps < 1e5 else f"{rate_rps:,.0f}/s"


def case(p: Parameters, calibration: pd.DataFrame) -> Case:
    """Return the case of a calibration: block, service_s, overhead_s, occupied_s of requests of one worker.

    The speed of blocks differs, so the sample is each service time over the mean of its block, times the
    median block's mean. Raises LabError if no request of the calibration was answered.
    """
    known = calibration.dropna(subset=["service_s", "overhead_s"])
    if known.empty:
        raise LabError(NOBODY)
    times = pd.DataFrame(
        {
            "block": known["block"],
            "loop_s": known["service_s"],
            "all_s": known["service_s"] + known["occupied_s"],
            "beside_s": known["overhead_s"] - known["occupied_s"],
        }
    )
    means = times.groupby("block").mean()
    relative = times["all_s"] / times["block"].map(means["all_s"])
    loop_s = float(means["loop_s"].median())
    return Case(
        service_s=relative.to_numpy(float) * float(means["all_s"].median()),
        blocks_s=means["all_s"].to_numpy(float),
        loop_s=loop_s,
        beside_s=max(0.0, float(means["beside_s"].median())),
        slo_percentile=p.slo_percentile,
        slo_s=p.slo_loops * loop_s,
        queue=played_as({"topology": "cluster", "dispatch": p.dispatch}),
        headroom=p.headroom,
        is_given=bool(p.service_s),
    )


def rate_to_plan(p: Parameters, case: Case, sustained: Sustained) -> tuple[float, str]:
    """Return the rate to plan for and where it comes from; a rate of 0 if the workers sustain none."""
    if p.rate:
        return p.rate, AS_GIVEN
    workers = counted(sustained.workers, "worker")
    if sustained.share:
        return sustained.rate_rps(sustained.share.low, case.loop_s), f"what {workers} sustained in this run"
    return case.highest_rps(sustained.workers), f"what {workers} should sustain"
