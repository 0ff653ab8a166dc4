"""How throughput grows with workers: speed-up over one, its laws, and the stack of what was lost."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, PlainValidator

from lab.checks import Count, Positive, checked
from lab.errors import UsageError
from lab.models.statistics import Estimate, estimate, paired_ratio


@dataclass(frozen=True)
class Point:
    """One number of workers: throughput, speed-up over one worker of the same block, speed-up per worker."""

    workers: int
    throughput_rps: Estimate
    speedup: Estimate
    efficiency: Estimate


@checked
def speedups(
    workers: Sequence[Count], blocks: Sequence[Hashable], throughput_rps: Sequence[float]
) -> list[Point]:
    """Return a point for each number of workers, ascending; item i of the three lists is one trial.

    The first point is one worker: its throughput is the base, to be stated beside every speed-up. Values are
    medians over blocks. A block without a trial of one worker has no base, and is left out.
    Raises UsageError if a block has two trials of the same number of workers, or none has a base above zero.
    """
    trials = dict(zip(zip(workers, blocks, strict=True), throughput_rps, strict=True))
    if len(trials) != len(workers):
        raise UsageError("a block has two trials of the same number of workers: give only the best")
    base = {block: rate for (n, block), rate in trials.items() if n == 1}
    if not base:
        raise UsageError("speed-up is relative to one worker: add 1 to the numbers of workers")
    return [_point(n, trials, base) for n in sorted({n for n, block in trials if block in base})]


def _point(n: int, trials: Mapping[tuple[int, Hashable], float], base: Mapping[Hashable, float]) -> Point:
    blocks = [block for block in base if (n, block) in trials]
    rates = [trials[n, block] for block in blocks]
    ones = [base[block] for block in blocks]
    ideal = [n * one for one in ones]
    return Point(n, estimate(rates), paired_ratio(rates, ones), paired_ratio(rates, ideal))


@dataclass(frozen=True)
class ScalingLaw:
    """X(N) = g N / (1 + a (N-1) + b N (N-1)): Gunther's universal scalability law, Amdahl's when b = 0.

    g is the throughput of one worker in requests per second, a the contention, b the cost of coherency.
    Source: Gunther, Guerrilla Capacity Planning (2007), chapter 4.
    """

    one_worker_rps: float
    contention: float
    coherency: float

    def throughput_rps(self, workers: ArrayLike) -> NDArray[np.float64]:
        """Return the throughput that the law gives for each number of workers, in requests per second."""
        return _law(
            np.asarray(workers, dtype=np.float64), self.one_worker_rps, self.contention, self.coherency
        )


@checked
def fit_law(workers: Sequence[Positive], throughput_rps: Sequence[Positive], *, cpus: Positive) -> ScalingLaw:
    """Fit Gunther's law by least squares with 0 <= a <= 1 and b >= 0.

    Use only up to `cpus` workers: beyond, they share CPUs, and the curve has a kink unknown to the law.
    For an interval, fit each block by itself: normal theory is wrong at a bound.
    Raises UsageError if fewer than three numbers of workers are left: the law has three constants.
    """
    from scipy.optimize import curve_fit, nnls  # takes a moment to import

    n, rates = np.asarray(workers, dtype=np.float64), np.asarray(throughput_rps, dtype=np.float64)
    n, rates = n[n <= cpus], rates[n <= cpus]
    if (counts := len(np.unique(n))) < 3:
        raise UsageError(
            f"a law of three constants needs three numbers of workers up to {cpus:g} CPUs, "
            f"got {counts}: for two, draw the envelope"
        )
    best = float((rates / n).max())
    guess = nnls(_burdens(n), best * n / rates - 1)[0].clip(max=1)
    found, _ = curve_fit(_law, n, rates, [best, *guess], bounds=(0, [np.inf, 1, np.inf]), x_scale="jac")
    return ScalingLaw(*map(float, found))


@checked
def envelope(
    one_worker_rps: Positive, many_workers_rps: Positive, workers: Annotated[int, Field(ge=2)] = 2
) -> tuple[ScalingLaw, ScalingLaw]:
    """Return the two extremes of Gunther's laws that go through one worker and `workers` = n workers.

    Two throughputs of ratio r give only a + b n = (n/r - 1) / (n-1); for two workers, a + 2b = 2/r - 1.
    The first law has b = 0 (or a = 1, if that is not enough), the second a = 0. Those between fit equally
    well, so no peak is known. More than n-fold throughput counts as n-fold, the ideal line.
    """
    lost = max(0.0, (workers * one_worker_rps / many_workers_rps - 1) / (workers - 1))
    contention = min(1.0, lost)
    return (
        ScalingLaw(one_worker_rps, contention, (lost - contention) / workers),
        ScalingLaw(one_worker_rps, 0.0, lost / workers),
    )


def _law(n: NDArray[np.float64], g: float, a: float, b: float) -> NDArray[np.float64]:
    return np.asarray(g * n / (1 + _burdens(n) @ np.array([a, b])))


def _burdens(n: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([n - 1, n * (n - 1)], axis=-1)


def _column(values: object) -> NDArray[np.float64]:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise ValueError(f"must be a column of numbers, but its shape is {column.shape}")
    return column


Column = Annotated[Sequence[float] | NDArray[np.float64], PlainValidator(_column)]
"""A number per answered request."""


@dataclass(frozen=True)
class WorkerTime:
    """What workers did while all of them could be busy: seconds summed over workers, and requests answered.

    idle_s: a worker had no request. overhead_s: it had one, but was not in its loop: it took the request in,
    wrote the answer, or waited for either. in_loop_s: it was in its loop, loop_cpu_s of it on a CPU (nan if
    unknown). idle_s + overhead_s + in_loop_s = workers x window_s.
    """

    workers: int
    window_s: float
    answered: float
    idle_s: float
    overhead_s: float
    in_loop_s: float
    loop_cpu_s: float

    @property
    def throughput_rps(self) -> float:
        """Requests answered per second of the window."""
        return self.answered / self.window_s


@checked
def worker_time(
    workers: Count, worker: Column, sent_s: Column, end_s: Column, service_s: Column, service_cpu_s: Column
) -> WorkerTime | None:
    """Account for the time of `workers` workers, from their answered requests: item i of each is one request.

    The window runs from the moment when all that answered had work until the first ran out of it for good:
    beyond, fewer than all can be busy, and throughput says nothing of all. A worker's time is split at its
    answers: what lies between two of them belongs to the second. An answer whose stretch the window cuts
    counts in proportion. A worker that answered nothing was idle. A request that a client gave up on is not
    among the answered, so the work for it counts as overhead of the next one.

    Returns None if there is no such window: the workers were never busy at the same time.
    """
    columns = np.stack([worker, sent_s, end_s, service_s, service_cpu_s])
    if np.isnan(columns[:4]).any():
        raise UsageError("worker_time takes answered requests: a worker, a time or a service time is missing")
    columns = columns[:, np.argsort(columns[2], kind="stable")]
    of_each = [columns[1:, columns[0] == number] for number in np.unique(columns[0])]
    if len(of_each) > workers:
        raise UsageError(f"{len(of_each)} workers answered, but there are {workers}: was one replaced?")
    if not of_each:
        return None
    start_s = max(float(sent.min()) for sent, *_ in of_each)
    stop_s = min(float(end[-1]) for _, end, *_ in of_each)
    if stop_s <= start_s:
        return None
    window_s = stop_s - start_s
    answered, idle_s, in_loop_s, cpu_s = np.sum([_spent(mine, start_s, stop_s) for mine in of_each], axis=0)
    idle_s += (workers - len(of_each)) * window_s
    overhead_s = workers * window_s - idle_s - in_loop_s
    return WorkerTime(
        workers, window_s, *(float(total) for total in (answered, idle_s, overhead_s, in_loop_s, cpu_s))
    )


def _spent(mine: NDArray[np.float64], start_s: float, stop_s: float) -> NDArray[np.float64]:
    """Add up one worker's answers, idle seconds, loop seconds and loop CPU seconds within a window."""
    sent_s, end_s, service_s, cpu_s = mine
    begin_s = np.append(sent_s.min(), end_s[:-1])
    length_s = end_s - begin_s
    next_sent_s = np.minimum.accumulate(sent_s[::-1])[::-1]  # of this request and all that ended later
    idle_s = np.clip(next_sent_s - begin_s, 0, length_s)
    within_s = np.minimum(end_s, stop_s) - np.maximum(begin_s, start_s)
    at_once = (start_s < end_s) & (end_s <= stop_s)  # two answers at one moment: all of it, or nothing
    share = np.where(length_s > 0, np.clip(within_s, 0, None) / np.where(length_s > 0, length_s, 1), at_once)
    return np.asarray([share.sum(), share @ idle_s, share @ service_s, share @ cpu_s])


@dataclass(frozen=True)
class Stack:
    """The factors between the ideal speed-up of n workers and the one they reached, each over one worker.

    Each is the ratio of one quantity with n workers and with one, and 1 if nothing is lost. busy: the share
    of time in which a worker had a request. in_loop: the share of that which it spent in its loop, not beside
    it. on_cpu: CPU seconds per second in the loop. cpu_speed: loops per CPU second.
    """

    workers: int
    busy: float
    in_loop: float
    on_cpu: float
    cpu_speed: float

    @property
    def factors(self) -> dict[str, float]:
        """The factors by name, in the order of the loss names in `LOSSES`."""
        return {name: getattr(self, name) for name in LOSSES}

    @property
    def speedup(self) -> float:
        """The speed-up that was reached: the number of workers times all factors."""
        return self.workers * math.prod(self.factors.values())

    @property
    def losses(self) -> dict[str, float]:
        """What each factor takes from the ideal, in workers' worth; below 0 is a gain.

        It is -ln(factor) x the logarithmic mean of ideal and reached. These add up to ideal - reached, and no
        order of the factors is preferred (Ang, The LMDI approach to decomposition analysis, 2005).
        """
        lost = self.workers - self.speedup
        mean = lost / math.log1p(lost / self.speedup) if lost else self.speedup
        return {name: -mean * math.log(factor) for name, factor in self.factors.items()}


LOSSES = {
    "busy": "idle",
    "in_loop": "overhead per request",
    "on_cpu": "waiting for a CPU",
    "cpu_speed": "slower CPU",
}
"""What is lost by each factor of a stack, in words."""


def speedup_stack(one: WorkerTime, many: WorkerTime) -> Stack:
    """Return the stack of many workers over one, measured beside each other.

    Raises UsageError if `one` is not of one worker, or if the CPU time of the loops is unknown.
    """
    if one.workers != 1:
        raise UsageError(f"a speed-up stack is over one worker, got {one.workers}")
    if not (one.loop_cpu_s > 0 and many.loop_cpu_s > 0):
        raise UsageError(
            "a speed-up stack needs the CPU time of the loops, which these servers did not report"
        )

    def of(time: WorkerTime) -> NDArray[np.float64]:
        had_work_s = time.overhead_s + time.in_loop_s
        return np.array(
            [
                had_work_s / (time.workers * time.window_s),
                time.in_loop_s / had_work_s,
                time.loop_cpu_s / time.in_loop_s,
                time.answered / time.loop_cpu_s,
            ]
        )

    ratios = of(many) / of(one)
    stack = Stack(many.workers, *(float(ratio) for ratio in ratios))
    reached = many.throughput_rps / one.throughput_rps
    assert math.isclose(stack.speedup, reached, rel_tol=1e-9), (stack, reached)  # noqa: S101
    return stack
