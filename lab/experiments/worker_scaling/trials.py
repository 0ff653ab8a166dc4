"""How far does adding workers take us? Each number of them, offered more than it can answer."""

from dataclasses import replace

import pandas as pd
from pydantic import field_validator

from lab.checks import Count, Positive, Seconds, Whole
from lab.cpus import available_cpus
from lab.experiments import common, sustained
from lab.experiments.common import Iterations
from lab.hotloop import KernelName
from lab.servers.spec import DispatchName
from lab.study.parameters import ListOf, WorkerCount
from lab.study.plan import Condition
from lab.study.run import Run

EXPERIMENT = "worker-scaling"

OVERLOADED = 1.1
"""From this own utilisation on, a trial tells the highest throughput: below, workers may have had time."""


class Parameters(sustained.Sought):
    """What notebook 04 lets its reader set; no `workers` means those of `default_workers`."""

    run: str
    workers: ListOf[WorkerCount]
    growth: Positive
    overload: Positive
    duration_s: Seconds
    dispatch: DispatchName
    pin: bool
    kernel: KernelName
    iterations: Iterations
    timeout_s: Seconds
    blocks: Count
    seed: Whole
    searched: ListOf[WorkerCount]
    search_beyond: bool

    @field_validator("workers")
    @classmethod
    def _has_a_base(cls, workers: tuple[int, ...]) -> tuple[int, ...]:
        if workers and 1 not in workers:
            raise ValueError("must include 1, the base of every speed-up")
        if len(set(workers)) < len(workers):
            raise ValueError("must list each number once")
        return workers

    @field_validator("growth")
    @classmethod
    def _grows(cls, growth: float) -> float:
        if growth <= 1:
            raise ValueError("must be above 1")
        return growth


def default_workers(cpus: int, growth: float) -> list[int]:
    """Return 1 to 2 x cpus, each number at most `growth` times the one before; the number of CPUs, too."""
    counts = {cpus, 2 * cpus}
    n = 1
    while n < 2 * cpus:
        counts.add(n)
        n = max(n + 1, int(growth * n))
    return sorted(counts)


def conditions(p: Parameters) -> list[Condition]:
    """Return a condition per number of workers, at `overload` times the rate that its loops alone allow."""
    shared = p.model_dump(include={"duration_s", "dispatch", "pin", "kernel", "iterations", "timeout_s"})
    return [
        Condition(topology="cluster", workers=n, load=p.overload, **shared)
        for n in p.workers or default_workers(available_cpus(), p.growth)
    ]


def search(run: Run, p: Parameters) -> pd.DataFrame:
    """Search for the sustained rates of the `searched` servers; a row for each (`sustained.bounds`)."""
    return sustained.searched(run, EXPERIMENT, searched(p), p.objective, seed=p.seed)


def searched(p: Parameters) -> list[Condition]:
    """Return the servers whose sustained rate is searched; one worker is the single process of 02 and 03.

    If none are listed, they have one worker and one per CPU; with `search_beyond`, two per CPU, too.
    """
    cpus = available_cpus()
    shared = p.model_dump(include={"pin", "kernel", "iterations", "timeout_s"})
    single = Condition(rate=1, duration_s=p.search_s, **shared)
    return [
        single if n == 1 else replace(single, topology="cluster", workers=n, dispatch=p.dispatch)
        for n in p.searched or sorted({1, cpus, 2 * cpus if p.search_beyond else 1})
    ]


def accounted(run: Run, trials: pd.DataFrame) -> pd.DataFrame:
    """Add to each trial what `common.accounted` does, and highest_rps: the throughput of busy workers.

    It is nan if the trial's own utilisation was below `OVERLOADED`: it may then not be the highest.
    """
    found = common.accounted(run, trials)
    return found.assign(highest_rps=found["busy_rps"].where(found["utilisation"] >= OVERLOADED))


def highest(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that tell the highest throughput of their number of workers."""
    told: pd.DataFrame = trials[trials["highest_rps"] > 0]
    return told
