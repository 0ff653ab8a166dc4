"""Queues played in plain Python: short, slow, and another way to the answers of `lab.models.simulation`.

Each function returns the latency of every request.
"""

import math
from collections import deque
from collections.abc import Sequence

Times = Sequence[float]


def to_the_fewest(
    due_s: Times, service_s: Times, speeds: Times, bound: float = math.inf, *, turns: bool = False
) -> list[float]:
    """Send each request to the worker that holds the fewest, fewer than `bound`; or let them take turns."""
    ends_s: list[list[float]] = [[] for _ in speeds]  # of what each worker holds
    began_s = [-math.inf for _ in speeds]
    latencies_s = []
    now_s = -math.inf
    for i, (due, work) in enumerate(zip(due_s, service_s, strict=True)):
        now_s = max(now_s, due)
        if all(len(held) >= bound and held[0] > now_s for held in ends_s):
            now_s = min(held[0] for held in ends_s)
        for one, held in enumerate(ends_s):
            while held and held[0] <= now_s:
                began_s[one] = held.pop(0)
        fewest = min(range(len(speeds)), key=lambda one: (len(ends_s[one]), began_s[one]))
        one = i % len(speeds) if turns else fewest
        if not ends_s[one]:
            began_s[one] = now_s
        start_s = ends_s[one][-1] if ends_s[one] else now_s
        ends_s[one].append(start_s + work / speeds[one])
        latencies_s.append(ends_s[one][-1] - due)
    return latencies_s


def in_batches(due_s: Times, service_s: Times, speeds: Times) -> list[float]:
    """Let the worker that is free first take all that wait then, and do them one by one."""
    waiting = deque(zip(due_s, service_s, strict=True))
    free_s = [-math.inf for _ in speeds]
    latencies_s = []
    while waiting:
        one = min(range(len(speeds)), key=lambda one: free_s[one])
        free_s[one] = taken_s = max(free_s[one], waiting[0][0])
        while waiting and waiting[0][0] <= taken_s:
            due, work = waiting.popleft()
            free_s[one] += work / speeds[one]
            latencies_s.append(free_s[one] - due)
    return latencies_s


def shared(due_s: Times, service_s: Times, workers: int) -> list[float]:
    """Let all that are present go on, each at min(1, workers / present), and follow what each has left."""
    coming = deque(range(len(due_s)))
    left_s: dict[int, float] = {}
    ends_s = [0.0] * len(due_s)
    now_s = 0.0
    while coming or left_s:
        pace = min(1.0, workers / max(1, len(left_s)))
        leaves_s = now_s + min(left_s.values(), default=math.inf) / pace
        then_s = min(leaves_s, due_s[coming[0]] if coming else math.inf)
        left_s = {one: left - pace * (then_s - now_s) for one, left in left_s.items()}
        now_s = then_s
        if leaves_s == then_s:
            one = min(left_s, key=left_s.__getitem__)
            ends_s[one] = now_s
            del left_s[one]
        else:
            left_s[coming[0]] = service_s[coming[0]]
            coming.popleft()
    return [end - due for end, due in zip(ends_s, due_s, strict=True)]
