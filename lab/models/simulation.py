"""Queues simulated request by request, for any arrivals and service: a check of the formulas."""

import heapq
from collections import deque
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import PlainValidator

from lab.checks import Count, checked

Dispatch = Literal["central", "bounded", "round-robin", "random", "batches"]


def _arrivals(due_s: Any) -> NDArray[np.float64]:
    due = np.asarray(due_s, dtype=np.float64)
    if due.ndim != 1 or not np.isfinite(due).all() or (np.diff(due) < 0).any():
        raise ValueError("must be one list of finite times in ascending order")
    return due


def _works(service_s: Any) -> NDArray[np.float64]:
    service = np.asarray(service_s, dtype=np.float64)
    if not (np.isfinite(service) & (service >= 0)).all():
        raise ValueError("must be finite and at least 0")
    return service


@checked
def waits(
    due_s: Annotated[ArrayLike, PlainValidator(_arrivals)],
    service_s: Annotated[ArrayLike, PlainValidator(_works)],
    workers: Count,
    dispatch: Dispatch = "central",
    seed: int = 0,
    bound: Count = 1,
) -> NDArray[np.float64]:
    """Return how long each request waits, in seconds, until a worker begins it, first come first served.

    `due_s` are the arrival times in order; `service_s` is one time for all, or one for each.
    `central`: the worker that is free first takes the next request; `bounded`: the next request goes to the
    worker that holds the fewest, if fewer than `bound` (of equals, to the one that began first), else it
    waits for one that does: JBSQ of Kogias et al., R2P2, USENIX ATC 2019; `round-robin`: workers take turns;
    `random`: each request goes to a worker by chance (with `seed`), as with a hash, and waits for that one;
    `batches`: a free worker takes all that wait, and does them one by one.
    """
    due = np.asarray(due_s)
    service = np.broadcast_to(np.asarray(service_s), due.shape)
    if dispatch == "round-robin":
        return _apart(due, service, np.arange(len(due)) % workers)
    if dispatch == "random":
        return _apart(due, service, np.random.default_rng(seed).integers(workers, size=len(due)))
    if dispatch == "bounded":
        return _bounded(due, service, workers, bound)
    return (_batches if dispatch == "batches" else _central)(due, service, workers)


def _central(due: NDArray[np.float64], service: NDArray[np.float64], workers: int) -> NDArray[np.float64]:
    free_s = [0.0 if not len(due) else float(due[0])] * workers
    waited = np.empty(len(due))
    for i, (arrival, work) in enumerate(zip(due.tolist(), service.tolist(), strict=True)):
        start = max(arrival, free_s[0])
        heapq.heapreplace(free_s, start + work)
        waited[i] = start - arrival
    return waited


def _bounded(
    due: NDArray[np.float64], service: NDArray[np.float64], workers: int, bound: int
) -> NDArray[np.float64]:
    ends_s: list[deque[float]] = [deque() for _ in range(workers)]  # of what each worker holds
    began_s = [0.0] * workers
    waited = np.empty(len(due))
    now = 0.0
    for i, (arrival, work) in enumerate(zip(due.tolist(), service.tolist(), strict=True)):
        now = max(now, arrival)
        if all(len(held) == bound and held[0] > now for held in ends_s):
            now = min(held[0] for held in ends_s)
        for one, held in enumerate(ends_s):
            while held and held[0] <= now:
                began_s[one] = held.popleft()
        one = min(range(workers), key=lambda one: (len(ends_s[one]), began_s[one]))
        start = ends_s[one][-1] if ends_s[one] else now
        if not ends_s[one]:
            began_s[one] = now
        ends_s[one].append(start + work)
        waited[i] = start - arrival
    return waited


def _batches(due: NDArray[np.float64], service: NDArray[np.float64], workers: int) -> NDArray[np.float64]:
    arrivals, works = due.tolist(), service.tolist()
    free_s = [min(arrivals, default=0.0)] * workers
    starts: list[float] = []
    while len(starts) < len(arrivals):
        taken_s = start = max(arrivals[len(starts)], free_s[0])
        while len(starts) < len(arrivals) and arrivals[len(starts)] <= taken_s:
            starts.append(start)
            start += works[len(starts) - 1]
        heapq.heapreplace(free_s, start)
    return np.array(starts) - due


def _apart(
    due: NDArray[np.float64], service: NDArray[np.float64], worker: NDArray[np.int64]
) -> NDArray[np.float64]:
    waited = np.empty(len(due))
    for one in np.unique(worker):
        its = worker == one
        waited[its] = _one_queue(due[its], service[its])
    return waited


def _one_queue(due: NDArray[np.float64], service: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve Lindley's recursion: a start is the latest, over requests so far, of due + work since."""
    work_before = np.cumsum(service) - service
    return np.maximum.accumulate(due - work_before) - (due - work_before)
