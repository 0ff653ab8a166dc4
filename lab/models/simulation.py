"""Queues simulated request by request, for any arrivals, service times and speeds of workers.

They check the formulas, and answer where there is none. The loops are compiled by numba, each when it is
first needed: that takes seconds, but once, as the result is kept on disk.
"""

import heapq
from collections.abc import Callable
from functools import cache, wraps
from typing import Annotated, Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import PlainValidator

from lab.checks import Count, Whole, checked
from lab.errors import UsageError

Dispatch = Literal[
    "central", "bounded", "round-robin", "random", "batches", "shortest", "two-choices", "sharing"
]
"""Who does the next request:

- `central`: requests wait in one queue; the worker that is free first takes the next;
- `bounded`: the next request goes to the worker that holds the fewest, if fewer than `bound`, else it waits
  for one that does: JBSQ of Kogias et al., R2P2, USENIX ATC 2019;
- `shortest`: each request goes at once to the worker that holds the fewest;
- `two-choices`: each goes at once to the one that holds fewer, of two workers drawn by chance (with `seed`);
- `random`: each goes at once to a worker drawn by chance (with `seed`), as by a hash;
- `round-robin`: each goes at once to the next worker in turn;
- `batches`: a free worker takes all that wait, and does them one by one;
- `sharing`: none waits; n requests share c workers, and each goes on at min(1, c / n) of full speed.

Of workers that hold equally many, the one is taken that was first to begin its request, or to be free. All
but `sharing` serve first come first served.
"""


def _numbers(values: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("must be numbers") from None


def _arrivals(due_s: Any) -> NDArray[np.float64]:
    due = _numbers(due_s)
    if due.ndim != 1 or not np.isfinite(due).all() or (np.diff(due) < 0).any():
        raise ValueError("must be one list of finite times in ascending order")
    return due


def _works(service_s: Any) -> NDArray[np.float64]:
    service = _numbers(service_s)
    if not (np.isfinite(service) & (service >= 0)).all():
        raise ValueError("must be finite and at least 0")
    return service


def _paces(speeds: Any) -> NDArray[np.float64] | None:
    if speeds is None:
        return None
    paces = _numbers(speeds)
    if not (np.isfinite(paces) & (paces > 0)).all():
        raise ValueError("must be finite and above 0")
    return paces


Arrivals = Annotated[ArrayLike, PlainValidator(_arrivals)]
Works = Annotated[ArrayLike, PlainValidator(_works)]
Speeds = Annotated[ArrayLike | None, PlainValidator(_paces)]


@checked
def waits(
    due_s: Arrivals,
    service_s: Works,
    workers: Count,
    dispatch: Dispatch = "central",
    seed: Whole = 0,
    bound: Count = 1,
) -> NDArray[np.float64]:
    """Return how long each request waits, in seconds, until a worker begins it.

    `due_s` are the arrival times in order; `service_s` is one time for all, or one for each. With `sharing`,
    the wait is what a request takes longer than it would alone.
    """
    waited_s, _ = _played(due_s, service_s, np.ones(workers), dispatch, seed, bound)
    return waited_s


@checked
def latencies(
    due_s: Arrivals,
    service_s: Works,
    workers: Count,
    dispatch: Dispatch = "central",
    *,
    seed: Whole = 0,
    bound: Count = 1,
    speeds: Speeds = None,
) -> NDArray[np.float64]:
    """Return how long each request takes, in seconds, from when it is due to its end.

    `due_s` are the arrival times in order; `service_s` is one time for all, or one for each. `speeds` has a
    number per worker, 1 for full speed: a request on worker w takes service_s / speeds[w].
    """
    if speeds is not None and dispatch == "sharing":
        raise UsageError("speeds are not for sharing: its requests share all workers, at one speed")
    if speeds is not None and np.shape(speeds) != (workers,):
        raise UsageError(f"speeds must have a number for each of {workers} workers, got {np.size(speeds)}")
    paces = np.ones(workers) if speeds is None else speeds
    waited_s, took_s = _played(due_s, service_s, paces, dispatch, seed, bound)
    return waited_s + took_s


def _played(
    due_s: ArrayLike, service_s: ArrayLike, speeds: ArrayLike, dispatch: Dispatch, seed: int, bound: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how long each request waits for its worker, and how long that one then takes."""
    due, paces = np.array(due_s), np.array(speeds)  # copies: loops take what is writable, in one piece
    if np.ndim(service_s) and np.shape(service_s) != due.shape:
        raise UsageError(
            f"service_s must be one time, or one for each of {len(due)} requests, got {np.size(service_s)}"
        )
    service = np.array(np.broadcast_to(np.asarray(service_s), due.shape))
    if not len(due):
        return due, service
    if dispatch in _LOOPS:
        played = _LOOPS[dispatch](due, service, paces)
    else:
        most = bound if dispatch == "bounded" else len(due)
        drawn = _drawn(dispatch, len(due), len(paces), seed)
        played = _to_the_fewest(due, service, paces, drawn, most)
    return played[0, :], played[1, :]


def _drawn(dispatch: Dispatch, requests: int, workers: int, seed: int) -> NDArray[np.int64]:
    """Return a row for each request with the workers that it may go to; no columns if it may go to any."""
    random = np.random.default_rng(seed)
    if dispatch == "round-robin":
        return (np.arange(requests) % workers)[:, None]
    if dispatch == "random" or (dispatch == "two-choices" and workers == 1):
        return random.integers(workers, size=(requests, 1))
    if dispatch == "two-choices":
        one = random.integers(workers, size=requests)
        other = (one + random.integers(1, workers, size=requests)) % workers
        return np.stack([one, other], axis=1)
    return np.empty((requests, 0), dtype=np.int64)


Loop = Callable[..., NDArray[np.float64]]
"""Takes due_s, service_s, speeds, ...; returns two rows: how long each request waits, and is served."""


def _compiled(signature: str) -> Callable[[Loop], Loop]:
    """Have numba compile a loop when it is first called, or load what an earlier process compiled."""

    def lazily(loop: Loop) -> Loop:
        @cache
        def machine_code() -> Loop:
            import numba  # takes a moment to import

            def compiled(*, keep: bool) -> Loop:
                return cast(Loop, numba.njit(signature, nogil=True, cache=keep)(loop))

            try:
                return compiled(keep=True)
            except Exception:  # no writable folder, a full disk, a damaged cache
                return compiled(keep=False)

        @wraps(loop)
        def run(*arguments: Any) -> NDArray[np.float64]:
            return machine_code()(*arguments)

        return run

    return lazily


@_compiled("float64[:, ::1](float64[::1], float64[::1], float64[::1])")
def _central(
    due_s: NDArray[np.float64], service_s: NDArray[np.float64], speeds: NDArray[np.float64]
) -> NDArray[np.float64]:
    played = np.empty((2, len(due_s)))
    free_s = [(-np.inf, worker) for worker in range(len(speeds))]
    for i in range(len(due_s)):
        first_s, worker = free_s[0]
        start_s = max(due_s[i], first_s)
        took_s = service_s[i] / speeds[worker]
        heapq.heapreplace(free_s, (start_s + took_s, worker))
        played[0, i], played[1, i] = start_s - due_s[i], took_s
    return played


@_compiled("float64[:, ::1](float64[::1], float64[::1], float64[::1])")
def _batches(
    due_s: NDArray[np.float64], service_s: NDArray[np.float64], speeds: NDArray[np.float64]
) -> NDArray[np.float64]:
    played = np.empty((2, len(due_s)))
    free_s = [(-np.inf, worker) for worker in range(len(speeds))]
    i = 0
    while i < len(due_s):
        first_s, worker = free_s[0]
        taken_s = max(due_s[i], first_s)
        start_s = taken_s
        while i < len(due_s) and due_s[i] <= taken_s:
            took_s = service_s[i] / speeds[worker]
            played[0, i], played[1, i] = start_s - due_s[i], took_s
            start_s += took_s
            i += 1
        heapq.heapreplace(free_s, (start_s, worker))
    return played


@_compiled("float64[:, ::1](float64[::1], float64[::1], float64[::1])")
def _sharing(
    due_s: NDArray[np.float64], service_s: NDArray[np.float64], speeds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Follow `got_s`, what each request has been served since all were idle, had it been there from then on.

    All that are present get equally much: so each leaves when `got_s` reaches what it was on arrival plus the
    request's own service time, and a heap of those says who is next.
    """
    requests, workers = len(due_s), len(speeds)
    played = np.empty((2, requests))
    present = [(0.0, nobody) for nobody in range(0)]
    got_s, now_s = 0.0, due_s[0]
    for i in range(requests + 1):
        due = due_s[i] if i < requests else np.inf
        while len(present) > 0:
            leaves_at_s, one = present[0]
            end_s = now_s + (leaves_at_s - got_s) * max(1.0, len(present) / workers)
            if end_s > due:
                break
            heapq.heappop(present)
            played[0, one] = max(0.0, end_s - due_s[one] - service_s[one])
            played[1, one] = service_s[one]
            got_s, now_s = leaves_at_s, end_s
        if i < requests:
            got_s += (due - now_s) / max(1.0, len(present) / workers)
            if len(present) == 0:
                got_s = 0.0  # small numbers have more digits left
            now_s = due
            heapq.heappush(present, (got_s + service_s[i], i))
    return played


@_compiled("float64[:, ::1](float64[::1], float64[::1], float64[::1], int64[:, :], int64)")
def _to_the_fewest(
    due_s: NDArray[np.float64],
    service_s: NDArray[np.float64],
    speeds: NDArray[np.float64],
    drawn: NDArray[np.int64],
    bound: int,
) -> NDArray[np.float64]:
    """Send each request to the one of its drawn workers (of all, without any) that holds the fewest.

    While each of them holds `bound`, the request waits, and those due later with it. What a worker holds is a
    chain of requests: from the first, in service, each names the one after it.
    """
    requests, workers, choices = len(due_s), len(speeds), drawn.shape[1]
    played = np.empty((2, requests))
    end_s, after = np.empty(requests), np.empty(requests, np.int64)
    first, last = np.zeros(workers, np.int64), np.zeros(workers, np.int64)
    held, began_s = np.zeros(workers, np.int64), np.full(workers, -np.inf)
    now_s = due_s[0]
    for i in range(requests):
        now_s = max(now_s, due_s[i])
        best = -1
        while best < 0:
            soonest_s = np.inf
            for k in range(choices if choices > 0 else workers):
                worker = drawn[i, k] if choices > 0 else k
                while held[worker] > 0 and end_s[first[worker]] <= now_s:
                    began_s[worker] = end_s[first[worker]]
                    first[worker] = after[first[worker]]
                    held[worker] -= 1
                if held[worker] == bound:
                    soonest_s = min(soonest_s, end_s[first[worker]])
                elif best < 0 or (held[worker], began_s[worker], worker) < (held[best], began_s[best], best):
                    best = worker
            if best < 0:
                now_s = soonest_s
        if held[best] == 0:
            start_s = now_s
            first[best], began_s[best] = i, start_s
        else:
            start_s = end_s[last[best]]
            after[last[best]] = i
        took_s = service_s[i] / speeds[best]
        end_s[i] = start_s + took_s
        last[best] = i
        held[best] += 1
        played[0, i], played[1, i] = start_s - due_s[i], took_s
    return played


_LOOPS: dict[str, Loop] = {"central": _central, "batches": _batches, "sharing": _sharing}
