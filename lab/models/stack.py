"""The speed-up stack: what workers did with their time, and so where the ideal speed-up went."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainValidator

from lab.checks import Count, checked
from lab.errors import UsageError


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
